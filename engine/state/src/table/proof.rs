//! Reading back some of what was frozen, before a checkpoint relies on it: of the first freeze many entries, of
//! later ones a few, from one group after another.

use super::part::Bytes;
use crate::error::Problem;

/// Entries that are read back of the first freeze that has any.
const FIRST: u64 = 1024;
/// And of each later one.
const LATER: u64 = 16;

/// Reads entries of a freeze back. `proofs` counts the freezes of which something was; `read` reads the entry at
/// the front of a section back and returns the rest.
pub(super) fn prove(
    proofs: &mut usize,
    sections: &[(u16, Bytes)],
    read: impl Fn(&[u8]) -> Result<&[u8], Problem>,
) -> Result<(), Problem> {
    let count = sections.len();
    if count == 0 {
        return Ok(());
    }
    let mut left = if *proofs == 0 { FIRST } else { LATER };
    let from = *proofs % count;
    *proofs += 1;
    for (_, section) in sections.iter().cycle().skip(from).take(count) {
        let entries = section.entries.min(left);
        let mut rest = &section.bytes[..];
        for _ in 0..entries {
            rest = read(rest)?;
        }
        if entries == section.entries && !rest.is_empty() {
            return Err(Problem::Differs);
        }
        left -= entries;
        if left == 0 {
            break;
        }
    }
    Ok(())
}
