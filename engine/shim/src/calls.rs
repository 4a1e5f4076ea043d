//! The names of libc that are taken: each counts, and passes on to the one behind it.
//!
//! `open` and `fcntl` take what comes after their fixed arguments as one more: on the systems that we know it comes in
//! the same registers.

use crate::strike::through;
use libc::{
    DIR, c_char, c_int, c_uint, c_void, dirent, dirent64, iovec, mode_t, off_t, off64_t, size_t, ssize_t,
};
use std::mem::transmute;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering::Relaxed};

/// Where the function of this name is that would be called without us.
fn behind(known: &AtomicPtr<c_void>, name: &'static str) -> *mut c_void {
    let mut found = known.load(Relaxed);
    if found.is_null() {
        // SAFETY: all names end with a zero.
        found = unsafe { libc::dlsym(libc::RTLD_NEXT, name.as_ptr().cast()) };
        known.store(found, Relaxed);
    }
    found
}

/// `OPERATION ANSWER_OF_A_FAILURE; a function of libc; where it goes to; the argument that says how much`.
macro_rules! take {
    ($operation:literal $failed:expr; fn $name:ident($($arg:ident: $type:ty),*) -> $answer:ty; $find:expr
     $(; half $much:ident)?) => {
        /// # Safety
        /// That of the function of libc.
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $name($($arg: $type),*) -> $answer {
            static BEHIND: AtomicPtr<c_void> = AtomicPtr::new(ptr::null_mut());
            let found = behind(&BEHIND, concat!(stringify!($name), "\0"));
            if found.is_null() {
                return $failed;
            }
            // SAFETY: it is the function of this name, with its arguments.
            let function: unsafe extern "C" fn($($type),*) -> $answer = unsafe { transmute(found) };
            through(
                $operation,
                $find,
                $failed,
                // SAFETY: the caller's.
                || unsafe { function($($arg),*) },
                || {
                    $(let $much = if $much > 1 { $much / 2 } else { $much };)?
                    // SAFETY: the caller's; less is read or written than it allowed.
                    unsafe { function($($arg),*) }
                },
            )
        }
    };
}

/// `at FOLDER PATH`, `path PATH`, `file FILE`: where an operation goes to.
macro_rules! to {
    // SAFETY: the caller gives what libc asks for, a text that ends with a zero.
    (at $folder:ident $path:ident) => {
        |place| unsafe { place.of_path($folder, $path) }
    };
    // SAFETY: as above.
    (path $path:ident) => {
        |place| unsafe { place.of_path(libc::AT_FDCWD, $path) }
    };
    (file $file:ident) => {
        |place| place.of_file($file)
    };
    // SAFETY: the caller gives what libc asks for, an open folder.
    (folder $folder:ident) => {
        |place| place.of_file(unsafe { libc::dirfd($folder) })
    };
}

type Text = *const c_char;

take!(b"open" -1; fn open(path: Text, flags: c_int, mode: mode_t) -> c_int; to!(path path));
take!(b"open" -1; fn open64(path: Text, flags: c_int, mode: mode_t) -> c_int; to!(path path));
take!(b"open" -1; fn openat(at: c_int, path: Text, flags: c_int, mode: mode_t) -> c_int; to!(at at path));
take!(b"open" -1; fn openat64(at: c_int, path: Text, flags: c_int, mode: mode_t) -> c_int; to!(at at path));
take!(b"open" -1; fn creat(path: Text, mode: mode_t) -> c_int; to!(path path));

take!(b"read" -1; fn read(file: c_int, to: *mut c_void, length: size_t) -> ssize_t; to!(file file); half length);
take!(b"read" -1; fn pread(file: c_int, to: *mut c_void, length: size_t, at: off_t) -> ssize_t; to!(file file); half length);
take!(b"read" -1; fn pread64(file: c_int, to: *mut c_void, length: size_t, at: off64_t) -> ssize_t; to!(file file); half length);
take!(b"read" -1; fn readv(file: c_int, parts: *const iovec, count: c_int) -> ssize_t; to!(file file); half count);

take!(b"write" -1; fn write(file: c_int, from: *const c_void, length: size_t) -> ssize_t; to!(file file); half length);
take!(b"write" -1; fn pwrite(file: c_int, from: *const c_void, length: size_t, at: off_t) -> ssize_t; to!(file file); half length);
take!(b"write" -1; fn pwrite64(file: c_int, from: *const c_void, length: size_t, at: off64_t) -> ssize_t; to!(file file); half length);
take!(b"write" -1; fn writev(file: c_int, parts: *const iovec, count: c_int) -> ssize_t; to!(file file); half count);

take!(b"sync" -1; fn fsync(file: c_int) -> c_int; to!(file file));
take!(b"sync" -1; fn fdatasync(file: c_int) -> c_int; to!(file file));
take!(b"sync" -1; fn sync_file_range(file: c_int, at: off64_t, length: off64_t, flags: c_uint) -> c_int; to!(file file));

take!(b"cut" -1; fn ftruncate(file: c_int, length: off_t) -> c_int; to!(file file));
take!(b"cut" -1; fn ftruncate64(file: c_int, length: off64_t) -> c_int; to!(file file));
take!(b"allocate" -1; fn fallocate(file: c_int, mode: c_int, at: off_t, length: off_t) -> c_int; to!(file file));
take!(b"allocate" -1; fn fallocate64(file: c_int, mode: c_int, at: off64_t, length: off64_t) -> c_int; to!(file file));

take!(b"rename" -1; fn rename(from: Text, to: Text) -> c_int; to!(path to));
take!(b"rename" -1; fn renameat(at: c_int, from: Text, other: c_int, to: Text) -> c_int; to!(at other to));
take!(b"rename" -1; fn renameat2(at: c_int, from: Text, other: c_int, to: Text, flags: c_uint) -> c_int; to!(at other to));
take!(b"link" -1; fn link(from: Text, to: Text) -> c_int; to!(path to));
take!(b"link" -1; fn linkat(at: c_int, from: Text, other: c_int, to: Text, flags: c_int) -> c_int; to!(at other to));
take!(b"unlink" -1; fn unlink(path: Text) -> c_int; to!(path path));
take!(b"unlink" -1; fn unlinkat(at: c_int, path: Text, flags: c_int) -> c_int; to!(at at path));
take!(b"unlink" -1; fn rmdir(path: Text) -> c_int; to!(path path));
take!(b"mkdir" -1; fn mkdir(path: Text, mode: mode_t) -> c_int; to!(path path));
take!(b"mkdir" -1; fn mkdirat(at: c_int, path: Text, mode: mode_t) -> c_int; to!(at at path));
// Within a file system `std::fs::copy` asks the kernel.
take!(b"copy" -1; fn copy_file_range(from: c_int, at: *mut off64_t, file: c_int, other: *mut off64_t, length: size_t, flags: c_uint) -> ssize_t; to!(file file); half length);
take!(b"copy" -1; fn sendfile(file: c_int, from: c_int, at: *mut off_t, length: size_t) -> ssize_t; to!(file file); half length);
take!(b"copy" -1; fn sendfile64(file: c_int, from: c_int, at: *mut off64_t, length: size_t) -> ssize_t; to!(file file); half length);

take!(b"list" ptr::null_mut(); fn opendir(path: Text) -> *mut DIR; to!(path path));
take!(b"list" ptr::null_mut(); fn readdir(folder: *mut DIR) -> *mut dirent; to!(folder folder));
take!(b"list" ptr::null_mut(); fn readdir64(folder: *mut DIR) -> *mut dirent64; to!(folder folder));

take!(b"look" -1; fn stat(path: Text, into: *mut libc::stat) -> c_int; to!(path path));
take!(b"look" -1; fn stat64(path: Text, into: *mut libc::stat64) -> c_int; to!(path path));
take!(b"look" -1; fn lstat(path: Text, into: *mut libc::stat) -> c_int; to!(path path));
take!(b"look" -1; fn lstat64(path: Text, into: *mut libc::stat64) -> c_int; to!(path path));
take!(b"look" -1; fn fstat(file: c_int, into: *mut libc::stat) -> c_int; to!(file file));
take!(b"look" -1; fn fstat64(file: c_int, into: *mut libc::stat64) -> c_int; to!(file file));
take!(b"look" -1; fn fstatat(at: c_int, path: Text, into: *mut libc::stat, flags: c_int) -> c_int; to!(at at path));
take!(b"look" -1; fn fstatat64(at: c_int, path: Text, into: *mut libc::stat64, flags: c_int) -> c_int; to!(at at path));
take!(b"look" -1; fn statx(at: c_int, path: Text, flags: c_int, mask: c_uint, into: *mut libc::statx) -> c_int; to!(at at path));
take!(b"look" -1; fn access(path: Text, mode: c_int) -> c_int; to!(path path));

// Locks, in the main; whatever is done by `fcntl` is counted.
take!(b"lock" -1; fn fcntl(file: c_int, what: c_int, argument: *mut c_void) -> c_int; to!(file file));
take!(b"lock" -1; fn fcntl64(file: c_int, what: c_int, argument: *mut c_void) -> c_int; to!(file file));
take!(b"lock" -1; fn flock(file: c_int, what: c_int) -> c_int; to!(file file));
