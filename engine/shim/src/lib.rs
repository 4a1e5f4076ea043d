//! Loaded before libc (`LD_PRELOAD`), it counts what a process does to files below one folder, and strikes at one of
//! these operations: kills, fails, lies, writes half, sleeps, hangs. The program `attack` (`engine/testing`) uses it.
//!
//! Promises: exactly one operation is struck, or none; all others are libc's, with its `errno`; what was counted can
//! be read after the process is dead. It allocates nothing, takes no lock and cannot panic, because it runs inside of
//! everything. Knows nothing of the engine.
//!
//! Without the variables of [`plan`] it does nothing but pass on. On other systems than Linux it is empty. What it
//! does not see: system calls that do not go through a name of libc, those that libc makes on its own behalf
//! (`realpath`), and memory-mapped access.

#[cfg(target_os = "linux")]
mod calls;
#[cfg(target_os = "linux")]
mod place;
#[cfg(target_os = "linux")]
pub mod plan;
#[cfg(target_os = "linux")]
mod strike;
