//! Directories and files for one user's eyes: what lies below the state directory.
//!
//! An administrator's command runs as root where the service runs as somebody else. What such a command makes must
//! belong to whom the directory belongs to, or the service is locked out of its own state.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::{Gid, Uid, fchown};

/// Makes a directory and those above it, unless they are there.
///
/// # Errors
/// What the system says.
pub fn directory(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    // Not through a link that somebody put in its place.
    let flags = rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::NOFOLLOW;
    let made = OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path)?;
    hand_over(&made, path);
    Ok(())
}

/// Opens a file with these options, and makes it if it is not there. A file that was there keeps its owner: under its name
/// may be a link to another.
///
/// # Errors
/// What the system says.
pub fn file(path: &Path, options: &OpenOptions) -> io::Result<File> {
    match options.open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        opened => return opened,
    }
    match options.clone().create_new(true).mode(0o600).open(path) {
        Ok(made) => {
            hand_over(&made, path);
            Ok(made)
        }
        // Another process was faster, or it is a link to where nothing is yet.
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            options.clone().create(true).mode(0o600).open(path)
        }
        Err(error) => Err(error),
    }
}

/// Gives what root has made to whom its directory belongs. Root may not be allowed to, as in some containers: then it
/// stays as it is, and what cannot be read is told by who cannot read it.
fn hand_over(made: impl AsFd, path: &Path) {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let parent = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    let given = std::fs::metadata(parent).and_then(|parent| {
        fchown(made, Some(Uid::from_raw(parent.uid())), Some(Gid::from_raw(parent.gid())))?;
        Ok(())
    });
    if let Err(error) = given {
        tracing::debug!("{} stays root's: {error}", path.display());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(path: &Path) -> (u32, u32) {
        let metadata = std::fs::symlink_metadata(path).unwrap();
        (metadata.uid(), metadata.gid())
    }

    /// A directory of nobody's where this is root, else of whoever this is.
    fn of_somebody() -> (tempfile::TempDir, (u32, u32)) {
        let directory = tempfile::tempdir().unwrap();
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(directory.path(), Some(65534), Some(65533)).unwrap();
            assert_eq!(owner(directory.path()), (65534, 65533));
        }
        let owner = owner(directory.path());
        (directory, owner)
    }

    #[test]
    fn what_is_made_belongs_to_whom_its_directory_belongs_to_and_is_for_nobody_else() {
        let (place, somebody) = of_somebody();
        let below = place.path().join("below");
        directory(&below).unwrap();
        directory(&below).unwrap();
        let path = below.join("a");
        drop(file(&path, OpenOptions::new().append(true)).unwrap());
        drop(file(&path, OpenOptions::new().append(true)).unwrap());
        assert_eq!((owner(&below), owner(&path)), (somebody, somebody));
        let mode = |path| std::fs::metadata(path).unwrap().mode() & 0o777;
        assert_eq!((mode(&below), mode(&path)), (0o700, 0o600));
    }

    #[test]
    fn what_was_there_before_keeps_its_owner_also_behind_a_link() {
        let (place, _) = of_somebody();
        let elsewhere = tempfile::tempdir().unwrap();
        let (precious, not_yet) = (elsewhere.path().join("precious"), elsewhere.path().join("not-yet"));
        std::fs::write(&precious, "").unwrap();
        let before = owner(&precious);
        for (name, target) in [("a", &precious), ("b", &not_yet)] {
            let link = place.path().join(name);
            std::os::unix::fs::symlink(target, &link).unwrap();
            drop(file(&link, OpenOptions::new().append(true)).unwrap());
            assert_eq!(owner(target), before);
        }
    }
}
