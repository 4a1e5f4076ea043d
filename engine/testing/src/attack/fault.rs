//! What can be done to a file operation, and how a process may end that this is done to.

use std::fmt;
use std::str::FromStr;

/// What is done to the operation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Fault {
    /// The process is killed before it.
    KillBefore,
    /// The process is killed after it.
    KillAfter,
    /// Half of it is written, and the process is killed.
    Torn,
    /// The process stops before it, another one completes the job, and it wakes up.
    Stop,
    /// It is not done: input/output error.
    Error,
    /// It is not done: no space left.
    Full,
    /// It is not done: no permission.
    Forbidden,
    /// It is not done: too many open files.
    Descriptors,
    /// It is not done: interrupted.
    Interrupted,
    /// It is done, and said to have failed.
    Lie,
    /// It is done, and said to have failed because somebody had done it before.
    Repeated,
    /// Half of it is done, and this is said.
    Short,
    /// It takes longer than a checkpoint may.
    Sleep,
    /// It never comes back, as on a server of files that is away; then the process is asked to stop.
    Hang,
}

/// How a process may end whose operation was struck.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ends {
    /// It is killed.
    Killed,
    /// It stops, and later ends in any way.
    Stopped,
    /// Well, or with an error that says where and that starting again may help.
    Passing,
    /// Well, or with an error that says where: a person may have to look.
    Either,
    /// Well: this has to be borne.
    Well,
    /// Soon after it was asked to stop: well, or with an error as after a passing fault.
    Asked,
}

impl Fault {
    /// All of them, in the order of the table's columns.
    pub const ALL: [Fault; 14] = [
        Fault::KillBefore,
        Fault::KillAfter,
        Fault::Torn,
        Fault::Stop,
        Fault::Error,
        Fault::Full,
        Fault::Forbidden,
        Fault::Descriptors,
        Fault::Interrupted,
        Fault::Lie,
        Fault::Repeated,
        Fault::Short,
        Fault::Sleep,
        Fault::Hang,
    ];

    /// Its name in the plan of the shim.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Fault::KillBefore => "kill-before",
            Fault::KillAfter => "kill-after",
            Fault::Torn => "torn",
            Fault::Stop => "stop",
            Fault::Error => "error",
            Fault::Full => "full",
            Fault::Forbidden => "forbidden",
            Fault::Descriptors => "descriptors",
            Fault::Interrupted => "interrupted",
            Fault::Lie => "lie",
            Fault::Repeated => "repeated",
            Fault::Short => "short",
            Fault::Sleep => "sleep",
            Fault::Hang => "hang",
        }
    }

    /// Whether it can happen to an operation.
    #[must_use]
    pub fn fits(self, operation: &str) -> bool {
        let one_of = |operations: &[&str]| operations.contains(&operation);
        match self {
            Fault::KillBefore
            | Fault::KillAfter
            | Fault::Stop
            | Fault::Error
            | Fault::Sleep
            | Fault::Hang => true,
            Fault::Torn => operation == "write",
            Fault::Full => {
                one_of(&["open", "write", "sync", "cut", "allocate", "rename", "link", "mkdir", "copy"])
            }
            Fault::Forbidden => one_of(&["open", "rename", "link", "unlink", "mkdir", "list", "look"]),
            Fault::Descriptors => operation == "open",
            Fault::Interrupted => one_of(&["open", "read", "write", "sync", "cut"]),
            // What only looks does nothing: this would be an error once more.
            Fault::Lie => !one_of(&["read", "list", "look"]),
            Fault::Repeated => one_of(&["rename", "link", "unlink", "mkdir"]),
            Fault::Short => one_of(&["read", "write", "copy"]),
        }
    }

    /// How a process may end that it happens to.
    #[must_use]
    pub fn ends(self) -> Ends {
        match self {
            Fault::KillBefore | Fault::KillAfter | Fault::Torn => Ends::Killed,
            Fault::Stop => Ends::Stopped,
            Fault::Error
            | Fault::Full
            | Fault::Descriptors
            | Fault::Interrupted
            | Fault::Lie
            | Fault::Repeated => Ends::Passing,
            Fault::Forbidden => Ends::Either,
            Fault::Short | Fault::Sleep => Ends::Well,
            Fault::Hang => Ends::Asked,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Fault {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let found = Fault::ALL.into_iter().find(|fault| fault.name() == name);
        found.ok_or_else(|| {
            format!("there is no fault {name:?}; there are {}", Fault::ALL.map(Fault::name).join(", "))
        })
    }
}
