//! Decimal numbers in the server's binary form: digits to the base of 10,000.

use bytes::{BufMut, BytesMut};

/// Digits behind the point that the server keeps, and before it.
const MOST_BEHIND: usize = 16_383;
const MOST_BEFORE: usize = 131_072;
/// The largest exponent that is looked at: everything beyond is too large anyway.
const MOST_EXPONENT: i32 = 200_000;

/// Appends a number that is written in decimals, with an exponent or not.
pub(crate) fn encode(text: &str, limits: Option<(i32, i32)>, out: &mut BytesMut) -> Result<(), &'static str> {
    let (negative, digits, scale) = parse(text)?;
    let before = i32::try_from(digits.len()).unwrap_or(i32::MAX) - scale;
    // Zeros at the end of what was written are part of a number without limits, and not of one with.
    if let Some((precision, most)) = limits {
        let zeros = digits.iter().rev().take_while(|digit| **digit == 0).count();
        let needed = scale - i32::try_from(zeros).unwrap_or(i32::MAX);
        let is_zero = zeros == digits.len();
        if !is_zero && needed > most {
            return Err("it would be rounded");
        }
        if !is_zero && before - leading_zeros(&digits) > precision - most {
            return Err("it is too large");
        }
    }
    write(negative, &digits, scale, limits.map(|(_, scale)| scale), out)
}

fn leading_zeros(digits: &[u8]) -> i32 {
    i32::try_from(digits.iter().take_while(|digit| **digit == 0).count()).unwrap_or(i32::MAX)
}

/// Sign, all digits, and how many of them are behind the point.
fn parse(text: &str) -> Result<(bool, Vec<u8>, i32), &'static str> {
    let no_number = "it is no decimal number";
    let (negative, rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (number, exponent) = match rest.split_once(['e', 'E']) {
        Some((number, exponent)) => (number, exponent.parse::<i32>().map_err(|_| no_number)?),
        None => (rest, 0),
    };
    if exponent.abs() > MOST_EXPONENT {
        return Err("its exponent is too large");
    }
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let mut digits: Vec<u8> = Vec::with_capacity(whole.len() + fraction.len());
    for byte in whole.bytes().chain(fraction.bytes()) {
        if !byte.is_ascii_digit() {
            return Err(no_number);
        }
        digits.push(byte - b'0');
    }
    if digits.is_empty() {
        return Err(no_number);
    }
    let mut scale = i32::try_from(fraction.len()).map_err(|_| no_number)? - exponent;
    while scale < 0 {
        digits.push(0);
        scale += 1;
    }
    Ok((negative, digits, scale))
}

fn write(
    negative: bool,
    digits: &[u8],
    scale: i32,
    shown: Option<i32>,
    out: &mut BytesMut,
) -> Result<(), &'static str> {
    let behind = usize::try_from(scale).unwrap_or(0);
    let mut all = digits.to_vec();
    // A number below 1 may have fewer digits than places behind the point.
    if all.len() < behind {
        all.splice(0..0, std::iter::repeat_n(0, behind - all.len()));
    }
    let before = all.len() - behind;
    all.splice(0..0, std::iter::repeat_n(0, (4 - before % 4) % 4));
    all.extend(std::iter::repeat_n(0, (4 - behind % 4) % 4));
    let mut groups: Vec<i16> =
        all.chunks(4).map(|four| four.iter().fold(0, |sum, digit| sum * 10 + i16::from(*digit))).collect();
    let mut weight = i32::try_from(before.div_ceil(4)).unwrap_or(i32::MAX) - 1;
    let zeros = groups.iter().take_while(|group| **group == 0).count();
    groups.drain(..zeros);
    weight -= i32::try_from(zeros).unwrap_or(i32::MAX);
    while groups.last() == Some(&0) {
        groups.pop();
    }
    let is_zero = groups.is_empty();
    if is_zero && negative {
        return Err("a decimal number has no negative zero");
    }
    if is_zero {
        weight = 0;
    }
    let display = shown.map_or(behind, |scale| usize::try_from(scale).unwrap_or(0));
    if behind > MOST_BEHIND || before > MOST_BEFORE {
        return Err("it has more digits than the server keeps");
    }
    let count = i16::try_from(groups.len()).map_err(|_| "it has more digits than the server keeps")?;
    out.put_i16(count);
    out.put_i16(i16::try_from(weight).map_err(|_| "it has more digits than the server keeps")?);
    out.put_u16(if negative { 0x4000 } else { 0 });
    out.put_u16(u16::try_from(display).map_err(|_| "it has more digits than the server keeps")?);
    groups.iter().for_each(|group| out.put_i16(*group));
    Ok(())
}
