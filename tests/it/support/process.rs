//! Runs the real binary: alone, with signals, with a sudden end.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tokio::time::Instant;

/// How long anything may take before the test says that it hangs.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks at a condition.
const LOOK: Duration = Duration::from_millis(5);

#[expect(
    clippy::disallowed_methods,
    reason = "another process moves on in real time, and the test has nothing else to do"
)]
fn pause() {
    std::thread::sleep(LOOK);
}

/// The binary's command line, with an environment that holds nothing of the machine's.
fn command(arguments: &[&str], directory: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_auditferry"));
    command
        .args(arguments)
        .current_dir(directory)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", directory)
        .env("TOKEN", SECRET);
    command
}

/// The value of the environment variable `TOKEN`; nothing may print it.
pub(crate) const SECRET: &str = "hunter2-is-not-printed";

/// How a run ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// Absent where a signal ended it.
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    /// The most memory it was seen to hold.
    pub(crate) peak_bytes: u64,
}

impl Ended {
    /// The exit code is this one, else everything is shown.
    pub(crate) fn with(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{}\n{}", self.stdout, self.stderr);
        self
    }
}

/// Runs to the end in this directory.
pub(crate) fn run(arguments: &[&str], directory: &Path) -> Ended {
    Process::start(arguments, directory).end()
}

/// Runs a line of shell with the binary as `$BINARY`; what it wrote to stderr.
pub(crate) fn shell(line: &str, directory: &Path) -> String {
    let mut shell = Command::new("sh");
    shell.args(["-c", line]).current_dir(directory).env("BINARY", env!("CARGO_BIN_EXE_auditferry"));
    String::from_utf8(shell.output().unwrap().stderr).unwrap()
}

/// A running auditferry; it is killed when dropped.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    output: tempfile::TempDir,
    /// Where it runs: its state lies there.
    directory: PathBuf,
}

impl Process {
    /// Starts in this directory. What it prints goes to files, so that it never waits for a reader.
    pub(crate) fn start(arguments: &[&str], directory: &Path) -> Self {
        Self::start_with::<&str>(arguments, directory, &[])
    }

    /// Starts with more in its environment; `{stderr}` in a value is device and inode of its stderr.
    pub(crate) fn start_with<V: AsRef<OsStr>>(
        arguments: &[&str],
        directory: &Path,
        environment: &[(&str, V)],
    ) -> Self {
        let output = tempfile::tempdir().unwrap();
        let file = |name: &str| Stdio::from(File::create(output.path().join(name)).unwrap());
        let stderr = File::create(output.path().join("stderr")).unwrap();
        let place = stderr.metadata().map(|it| format!("{}:{}", it.dev(), it.ino())).unwrap();
        let child =
            command(arguments, directory)
                .envs(environment.iter().map(|(name, value)| {
                    (name, value.as_ref().to_string_lossy().replace("{stderr}", &place))
                }))
                .stdin(Stdio::null())
                .stdout(file("stdout"))
                .stderr(stderr)
                .spawn()
                .unwrap();
        Self { child, output, directory: directory.to_owned() }
    }

    fn read(&self, name: &str) -> String {
        let bytes = std::fs::read(self.output.path().join(name)).unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// What it has logged.
    pub(crate) fn stderr(&self) -> String {
        self.read("stderr")
    }

    /// What it has printed.
    pub(crate) fn stdout(&self) -> String {
        self.read("stdout")
    }

    /// Waits until something holds.
    pub(crate) fn until(&mut self, what: &str, mut holds: impl FnMut(&Self) -> bool) {
        let start = Instant::now();
        while !holds(self) {
            let ended = self.child.try_wait().unwrap();
            assert!(
                ended.is_none() && start.elapsed() < PATIENCE,
                "not {what} ({ended:?} after {:?})\n{}",
                start.elapsed(),
                self.stderr()
            );
            pause();
        }
    }

    /// Waits until the log holds a text.
    pub(crate) fn until_logged(&mut self, text: &str) {
        self.until(text, |process| process.stderr().contains(text));
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Where its status server listens, once it does.
    pub(crate) fn address(&mut self) -> String {
        self.until_logged("listening on http://");
        let log = self.stderr();
        let address = log.split("listening on http://").nth(1).unwrap();
        address.split(['"', '\n']).next().unwrap().to_owned()
    }

    /// Sends a signal, such as `TERM`.
    pub(crate) fn signal(&self, name: &str) {
        // It still answers: what it shows then is looked at, too.
        self.assert_shows_no_secret();
        let line = format!("kill -{name} {}", self.child.id());
        assert!(Command::new("sh").args(["-c", &line]).status().unwrap().success());
    }

    /// Waits until it dies of itself, but not longer than this after it has started its work; whether it did.
    pub(crate) fn dies_within(&mut self, patience: Duration) -> bool {
        let (start, mut started) = (Instant::now(), None);
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                assert_eq!(status.code(), None, "it ended in order\n{}", self.stderr());
                return true;
            }
            if started.is_none() && self.stderr().contains("started") {
                started = Some(Instant::now());
            }
            if started.is_some_and(|at: Instant| at.elapsed() > patience) {
                return false;
            }
            assert!(start.elapsed() < PATIENCE, "it does not start\n{}", self.stderr());
            pause();
        }
    }

    /// Fails if what its server shows holds the secret.
    fn assert_shows_no_secret(&self) {
        let log = self.stderr();
        let Some((_, rest)) = log.split_once("listening on http://") else { return };
        let address: String =
            rest.chars().take_while(|c| c.is_ascii_digit() || matches!(c, '.' | ':')).collect();
        for path in ["/metrics", "/status", "/readyz"] {
            let Ok(mut stream) = TcpStream::connect(&address) else { return };
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            let mut shown = Vec::new();
            let asked = write!(stream, "GET {path} HTTP/1.1\r\nhost: here\r\nconnection: close\r\n\r\n");
            let _ = asked.and_then(|()| stream.read_to_end(&mut shown));
            assert_no_secret(&shown, path);
        }
    }

    /// Fails if the secret is in anything that it left: its log, its output, its state and dead letters.
    fn assert_left_no_secret(&self) {
        for name in ["stdout", "stderr"] {
            assert_no_secret(self.read(name).as_bytes(), name);
        }
        assert_none_holds_a_secret(&self.directory.join("state"));
    }

    /// Ends it at once, as the kernel does when memory runs out.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits for its end.
    pub(crate) fn end(mut self) -> Ended {
        let start = Instant::now();
        let mut peak_bytes = 0;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(start.elapsed() < PATIENCE, "it does not end\n{}", self.stderr());
            peak_bytes = self.peak_bytes().max(peak_bytes);
            pause();
        };
        Ended { code: status.code(), stdout: self.stdout(), stderr: self.stderr(), peak_bytes }
    }

    /// What its server answers, which it has logged the address of.
    pub(crate) fn get(&self, path: &str) -> String {
        let log = self.stderr();
        let (_, address) = log.split_once("listening on http://").unwrap();
        let address = address.split(['"', ',', '\n']).next().unwrap();
        let mut stream = TcpStream::connect(address).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    /// The most memory it has held so far; 0 where the system does not tell.
    pub(crate) fn peak_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        kilobytes.unwrap_or_default() * 1024
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended; then there is nothing to kill.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if !std::thread::panicking() {
            self.assert_left_no_secret();
        }
    }
}

/// A directory of this repository.
pub(crate) fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn assert_no_secret(bytes: &[u8], place: &str) {
    let text = String::from_utf8_lossy(bytes);
    assert!(!text.contains(SECRET), "the secret is in {place}: {text}");
}

fn assert_none_holds_a_secret(directory: &Path) {
    for entry in std::fs::read_dir(directory).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            assert_none_holds_a_secret(&path);
        } else {
            // A file may be gone by now: a replay's, or the database's beside the database.
            assert_no_secret(&std::fs::read(&path).unwrap_or_default(), &path.display().to_string());
        }
    }
}

/// The answer to a GET, head and body.
pub(crate) fn get(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}
