//! A disk that fails on demand, under the real binary.

use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

use super::process::repository;

/// No space left on device.
pub(crate) const FULL: u32 = 28;
/// Input/output error.
pub(crate) const BROKEN: u32 = 5;
/// Read-only file system: what a file system becomes when its disk fails.
pub(crate) const READ_ONLY: u32 = 30;

/// The disk, until it is dropped.
pub(crate) struct Disk {
    directory: TempDir,
}

impl Disk {
    /// Builds what stands between the binary and its disk. That takes a C compiler, as the binary does.
    pub(crate) fn new() -> Self {
        let disk = Self { directory: tempfile::tempdir().unwrap() };
        let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".to_owned());
        let built = Command::new(compiler)
            .args(["-shared", "-fPIC", "-O1", "-o"])
            .arg(disk.library())
            .arg(repository("tests/it/support/disk_fault.c"))
            .arg("-ldl")
            .output()
            .unwrap();
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        disk
    }

    fn library(&self) -> PathBuf {
        self.directory.path().join("disk_fault.so")
    }

    fn control(&self) -> PathBuf {
        self.directory.path().join("fault")
    }

    /// What the binary's environment needs for it.
    pub(crate) fn environment(&self) -> [(&'static str, PathBuf); 2] {
        [("LD_PRELOAD", self.library()), ("DISK_FAULT", self.control())]
    }

    /// From now on these calls ("write", "sync" or "all") on files with this in their path fail with an error number; with a
    /// `$` behind it, on files whose path ends so.
    pub(crate) fn fails(&self, number: u32, calls: &str, path: &str) {
        let new = self.control().with_extension("new");
        std::fs::write(&new, format!("{number} {calls} {path}")).unwrap();
        std::fs::rename(new, self.control()).unwrap();
    }

    /// All is well again.
    pub(crate) fn recovers(&self) {
        std::fs::remove_file(self.control()).unwrap();
    }
}
