//! What keeps secrets in memory from getting out of it.

use rustix::process::{Resource, Rlimit, setrlimit};

/// Lets no core be dumped: it would hold tokens and audit records. Where even that is refused, the process goes on.
pub(super) fn dump_no_core() {
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    // The limit does not hold where cores are piped to a program; nor may others of the same user read the memory then.
    #[cfg(target_os = "linux")]
    let _ = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
}

#[cfg(test)]
mod tests {
    use rustix::process::getrlimit;

    use super::*;

    #[test]
    fn a_process_dumps_no_core() {
        dump_no_core();
        assert_eq!(getrlimit(Resource::Core), Rlimit { current: Some(0), maximum: Some(0) });
        #[cfg(target_os = "linux")]
        assert_eq!(
            rustix::process::dumpable_behavior().unwrap(),
            rustix::process::DumpableBehavior::NotDumpable
        );
    }
}
