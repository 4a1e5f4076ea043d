//! Values that are stored with postcard: written so that nothing is left out, and looked at before anybody relies
//! on them. For state, and for whoever else stores values of foreign types.

use crate::codec;
use crate::error::{Problem, StateError};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Refuses a type whose values cannot be stored, as far as its shape shows it (see
/// [`schema::unfit`](crate::schema::unfit)). `role` says what the type is in the step: `key`, `state`.
///
/// # Errors
/// [`StateError::Unfit`].
pub fn check<T: Serialize + DeserializeOwned>(step: &str, role: &'static str) -> Result<(), StateError> {
    match crate::schema::unfit::<T>() {
        Some((rust, problem)) => Err(StateError::Unfit { step: step.to_owned(), role, rust, problem }),
        None => Ok(()),
    }
}

/// Appends the encoding of a value; on an error the buffer is as before.
///
/// # Errors
/// The value cannot be written, or not so that it could be read again.
pub fn append<T: Serialize>(value: &T, out: &mut Vec<u8>) -> Result<(), Problem> {
    codec::append(value, out)
}

/// Reads one value off the front of these bytes and writes it again, to see that it comes out the same; returns
/// the bytes behind it. Maps that hash may come out in another order.
///
/// # Errors
/// It cannot be read, or comes out as something else.
pub fn read_back<T: Serialize + DeserializeOwned>(bytes: &[u8]) -> Result<&[u8], Problem> {
    codec::read_back::<T>(bytes)
}
