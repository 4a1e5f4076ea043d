//! Where an operation goes to: a path seen from the folder, found without allocation.

use crate::plan::Plan;
use std::ffi::{CStr, c_char, c_int};

/// Longer paths are taken for being elsewhere.
const MOST: usize = 1024;

/// A path.
pub(crate) struct Place {
    bytes: [u8; MOST],
    length: usize,
}

impl Place {
    pub(crate) fn nowhere() -> Self {
        Self { bytes: [0; MOST], length: 0 }
    }

    fn add(&mut self, more: &[u8]) -> bool {
        let end = self.length.saturating_add(more.len());
        match self.bytes.get_mut(self.length..end) {
            Some(free) => {
                free.copy_from_slice(more);
                self.length = end;
                true
            }
            None => false,
        }
    }

    /// The path that an open file was opened by. Asked of the system each time: nobody has to follow `dup` and `close`.
    pub(crate) fn of_file(&mut self, file: c_int) -> bool {
        let mut link = *b"/proc/self/fd/\0\0\0\0\0\0\0\0\0\0\0\0";
        let (mut digits, mut rest) = (1, file);
        while rest >= 10 {
            (digits, rest) = (digits + 1, rest / 10);
        }
        rest = file;
        for at in (0..digits).rev() {
            if let Some(byte) = link.get_mut(14 + at) {
                *byte = b'0' + (rest % 10) as u8;
            }
            rest /= 10;
        }
        // What a process says is not what it does to files.
        if file <= libc::STDERR_FILENO {
            return false;
        }
        // SAFETY: the link's name ends with a zero, and the buffer is as long as is said.
        let length = unsafe {
            libc::syscall(libc::SYS_readlinkat, libc::AT_FDCWD, link.as_ptr(), self.bytes.as_mut_ptr(), MOST)
        };
        self.length = usize::try_from(length).unwrap_or(0).min(MOST);
        self.length > 0 && self.length < MOST
    }

    /// A path as it is given with the folder that it is seen from.
    ///
    /// # Safety
    /// `path` is null or ends with a zero.
    pub(crate) unsafe fn of_path(&mut self, folder: c_int, path: *const c_char) -> bool {
        if path.is_null() {
            return false;
        }
        // SAFETY: the caller's.
        let path = unsafe { CStr::from_ptr(path) }.to_bytes();
        match path.first() {
            // As `fstatat` is asked about an open file.
            None => self.of_file(folder),
            Some(b'/') => self.add(path),
            // What is seen from the working directory is not below the folder: that one is given in full.
            Some(_) if folder == libc::AT_FDCWD => false,
            Some(_) => self.of_file(folder) && self.add(b"/") && self.add(path),
        }
    }

    /// The path seen from the plan's folder, if it is below it.
    pub(crate) fn below(&self, plan: &Plan) -> Option<&[u8]> {
        let below = self.bytes.get(..self.length)?.strip_prefix(plan.root)?;
        match below.first() {
            None => Some(below),
            Some(b'/') => below.get(1..),
            Some(_) => None,
        }
    }
}
