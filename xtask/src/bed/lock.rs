//! One bed at a time is prepared: two would install, fetch and unpack into the same places.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::path::Path;

use anyhow::Context;

/// Waits until nobody else prepares a bed in this folder, as long as the result lives.
pub(crate) fn lock(folder: &Path) -> anyhow::Result<File> {
    let path = folder.join("lock");
    let named = || format!("cannot lock {}", path.display());
    fs::create_dir_all(folder).with_context(named)?;
    let file = OpenOptions::new().create(true).append(true).open(&path).with_context(named)?;
    match file.try_lock() {
        Ok(()) => return Ok(file),
        Err(TryLockError::WouldBlock) => eprintln!("waiting for another bed that is being prepared"),
        Err(TryLockError::Error(error)) => return Err(error).with_context(named),
    }
    file.lock().with_context(named)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn the_second_waits_for_the_first() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("beds");
        let first = lock(&place).unwrap();
        let other = OpenOptions::new().append(true).open(place.join("lock")).unwrap();
        assert!(matches!(other.try_lock(), Err(TryLockError::WouldBlock)));
        let (tell, told) = mpsc::channel();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let second = lock(&place);
                tell.send("second").unwrap();
                drop(second);
            });
            tell.send("first").unwrap();
            drop(first);
        });
        assert_eq!([told.recv().unwrap(), told.recv().unwrap()], ["first", "second"]);
    }
}
