//! The manual pages: what clap knows of the commands, and of the whole what no command's help has room for.

use std::io;
use std::path::Path;

use clap::Command;

/// Ends the page of `auditferry` itself.
const REST: &str = r#".SH FILES
.TP
.I /etc/auditferry/auditferry.toml
The configuration. Every key of it stands in
.IR /usr/share/doc/auditferry/reference.toml ;
.B auditferry schema \-\-reference
prints the same.
.TP
.I /etc/auditferry/conf.d/*.toml
Laid over it, key by key, in the order of their names.
.TP
.I /var/lib/auditferry
What has been delivered
.RI ( state.db ),
and
.IR dead\-letters/ .
.SH ENVIRONMENT
.TP
.B AUDITFERRY__SERVER__LISTEN
and the like: any key of the configuration, here
.I listen
of
.IR [server] .
.TP
.B CREDENTIALS_DIRECTORY
Where a secret { credential = "name" } is read from, the file
.I name
in it. systemd sets it for the service; by hand, as root:
.br
.B CREDENTIALS_DIRECTORY=/etc/auditferry auditferry check \-\-connect
.SH SIGNALS
.TP
.BR SIGTERM ", " SIGINT
Deliver what is under way, for as long as
.IR shutdown_grace ,
and end. Once more: end at once; what was not acknowledged is sent after the next start.
.TP
.B SIGHUP
Take the new configuration; a wrong one is refused, and the old one goes on. Open output files anew.
.SH "SEE ALSO"
.BR auditferry\-run (1),
.BR auditferry\-check (1),
.BR systemctl (1);
the page and the metrics of a running service: http://127.0.0.1:9598/
"#;

/// The page of the whole.
pub(super) fn page(command: Command) -> io::Result<String> {
    let mut command = command.disable_help_subcommand(true);
    command.build();
    Ok(rendered(command)? + REST)
}

/// A page for each command, `auditferry-dead-letters-list.1` and so on, into a directory.
pub(super) fn write_all(command: Command, directory: &Path) -> io::Result<()> {
    std::fs::create_dir_all(directory)?;
    std::fs::write(directory.join("auditferry.1"), page(command.clone())?)?;
    let mut command = command.disable_help_subcommand(true);
    command.build();
    write_below(&command, directory)
}

fn write_below(command: &Command, directory: &Path) -> io::Result<()> {
    for command in command.get_subcommands().filter(|command| !command.is_hide_set()) {
        let file = clap_mangen::Man::new(command.clone()).get_filename();
        std::fs::write(directory.join(file), rendered(command.clone())?)?;
        write_below(command, directory)?;
    }
    Ok(())
}

fn rendered(command: Command) -> io::Result<String> {
    let mut page = Vec::new();
    // By itself clap names the command where a page has what it belongs to, and calls what follows the options EXTRA.
    clap_mangen::Man::new(command)
        .source(concat!("auditferry ", env!("CARGO_PKG_VERSION")))
        .manual("auditferry")
        .render(&mut page)?;
    Ok(String::from_utf8_lossy(&page).replace(".SH EXTRA\n", ".SH NOTES\n"))
}
