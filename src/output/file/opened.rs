//! A file that is open: batches are appended to it whole or not at all.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

/// An open file.
pub(super) struct Opened {
    file: File,
    /// Not a pipe or device: can be synced and cut.
    regular: bool,
}

impl Opened {
    pub(super) fn at(path: &Path) -> io::Result<Self> {
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        std::fs::create_dir_all(parent)?;
        let file = open_options(path).open(path)?;
        let regular = file.metadata()?.is_file();
        if regular {
            // Whoever made file and directories, maybe this process before it was killed: their names must outlive a crash.
            parent.ancestors().try_for_each(sync_names)?;
        }
        Ok(Self { file, regular })
    }

    /// False for a file that was deleted: what is appended to it, nobody finds.
    pub(super) fn has_a_name(&self) -> bool {
        #[cfg(unix)]
        {
            let links = self.file.metadata().map(|metadata| std::os::unix::fs::MetadataExt::nlink(&metadata));
            !matches!(links, Ok(0))
        }
        #[cfg(not(unix))]
        true
    }

    pub(super) fn append(&self, body: &[u8]) -> io::Result<()> {
        if !self.regular {
            return (&self.file).write_all(body);
        }
        locked(&self.file, || {
            // Each time: another process may have died in the middle of its batch meanwhile.
            cut_torn_line(&self.file)?;
            or_undone(&self.file, || {
                (&self.file).write_all(body)?;
                self.file.sync_data()
            })
        })
    }
}

/// Appends, or leaves the file as it was: what a failed attempt wrote is sent again.
fn or_undone(file: &File, append: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    let before = file.metadata()?.len();
    append().inspect_err(|_| {
        // If even this fails, the next batch cuts at least a torn line.
        let _ = file.set_len(before);
    })
}

/// Sees to it that what was made in a directory is found there after a crash.
fn sync_names(directory: &Path) -> io::Result<()> {
    let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
    let Ok(directory) = File::open(directory) else { return Ok(()) };
    match directory.sync_all() {
        // Some file systems have nothing to sync there.
        Err(error) if matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) => {
            Ok(())
        }
        synced => synced,
    }
}

pub(super) fn is_pipe(path: &Path) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::FileTypeExt;
        std::fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_fifo())
    }
    #[cfg(not(unix))]
    false
}

fn open_options(path: &Path) -> OpenOptions {
    // A pipe opened for reading too would take events although nobody reads them.
    let readable = std::fs::metadata(path).map_or(true, |metadata| metadata.is_file());
    let mut options = OpenOptions::new();
    options.read(readable).append(true).create(true);
    #[cfg(unix)]
    {
        // An audit trail is not for everybody to read.
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o640);
    }
    options
}

/// Does something while no other output, of this process or another, appends to the file.
fn locked(file: &File, act: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    match file.lock() {
        // Some network file systems have no locks; then nobody else should write there.
        Err(error) if error.kind() == io::ErrorKind::Unsupported => return act(),
        locked => locked?,
    }
    let done = act();
    file.unlock()?;
    done
}

/// True if nothing stands behind the last line's end.
fn ends_a_line(mut file: &File, length: u64) -> io::Result<bool> {
    let Some(last) = length.checked_sub(1) else { return Ok(true) };
    let mut byte = [0];
    file.seek(SeekFrom::Start(last))?;
    file.read_exact(&mut byte)?;
    Ok(byte == *b"\n")
}

/// Cuts off an unfinished last line, which a crash leaves: its batch was never counted as delivered.
fn cut_torn_line(file: &File) -> io::Result<()> {
    const BLOCK: u64 = 64 << 10;
    let length = file.metadata()?.len();
    if ends_a_line(file, length)? {
        return Ok(());
    }
    let mut start = length;
    let mut whole = 0;
    while start > 0 && whole == 0 {
        let end = start;
        start = end.saturating_sub(BLOCK);
        let mut block = Vec::new();
        let mut reader = file;
        reader.seek(SeekFrom::Start(start))?;
        reader.take(end - start).read_to_end(&mut block)?;
        if let Some(at) = memchr::memrchr(b'\n', &block) {
            whole = start + u64::try_from(at).map_err(io::Error::other)? + 1;
        }
    }
    let mut first = [0];
    let mut reader = file;
    reader.seek(SeekFrom::Start(whole))?;
    reader.read_exact(&mut first)?;
    // Ours begins so, or is zeros where the crash came before the data.
    if !matches!(first, [b'{' | 0]) {
        return Err(io::Error::other("its last line has no end and is no event, so the file is not ours"));
    }
    file.set_len(whole)?;
    file.sync_data()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_that_fails_half_way_leaves_nothing_behind() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("events");
        std::fs::write(&path, "{\"a\":1}\n").unwrap();
        let opened = Opened::at(&path).unwrap();
        let failed = or_undone(&opened.file, || {
            (&opened.file).write_all(b"{\"a\":2}\n{\"a\"")?;
            Err(io::ErrorKind::StorageFull.into())
        });
        assert_eq!(failed.unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "{\"a\":1}\n");
    }
}
