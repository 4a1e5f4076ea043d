//! Dates and times in the server's binary form: days and microseconds since 2000.

use crate::encode::Refused;
use crate::kind::Kind;
use bytes::{BufMut, BytesMut};
use jiff::civil;

/// From 1970 to 2000.
const EPOCH_DAYS: i64 = 10_957;
const EPOCH_MICROSECONDS: i128 = EPOCH_DAYS as i128 * 86_400_000_000;

fn refused<T>(kind: &Kind, what: &str, why: &str) -> Result<T, Refused> {
    let shown: String = what.chars().take(40).collect();
    Err(format!("{} cannot hold {shown:?}: {why}", kind.name()))
}

/// Appends milliseconds since 1970, as `staunch::Timestamp` is written.
pub(crate) fn milliseconds(kind: &Kind, number: i128, out: &mut BytesMut) -> Result<(), Refused> {
    let Ok(time) =
        i64::try_from(number).map_err(drop).and_then(|n| jiff::Timestamp::from_millisecond(n).map_err(drop))
    else {
        return refused(kind, &number.to_string(), "such milliseconds since 1970 are beyond the year 9999");
    };
    instant(kind, &number.to_string(), time.as_nanosecond(), out)
}

/// Appends what a text in the form of ISO 8601 says.
pub(crate) fn text(kind: &Kind, text: &str, out: &mut BytesMut) -> Result<(), Refused> {
    if text.contains(":60") {
        return refused(kind, text, "leap seconds are not held");
    }
    match kind {
        Kind::Date => match text.parse::<civil::Date>() {
            Ok(date) if text.len() == 10 || text.starts_with('-') => {
                let days =
                    i64::from(date.since(civil::date(2000, 1, 1)).map_or(i32::MAX, |span| span.get_days()));
                out.put_i32(i32::try_from(days).map_err(|_| format!("{text} is no date"))?);
                Ok(())
            }
            _ => refused(kind, text, "give a date as 2026-01-31"),
        },
        Kind::Time(_) => match text.parse::<civil::Time>() {
            Ok(time) if is_plain(text) => {
                let nanoseconds = time.duration_since(civil::Time::midnight()).as_nanos();
                out.put_i64(microseconds(kind, text, nanoseconds)?);
                Ok(())
            }
            _ => refused(kind, text, "give a time as 23:59:59.999999"),
        },
        Kind::Timestamp(_) => match text.parse::<civil::DateTime>() {
            Ok(time) if is_plain(text) => match time.to_zoned(jiff::tz::TimeZone::UTC) {
                Ok(zoned) => instant(kind, text, zoned.timestamp().as_nanosecond(), out),
                Err(_) => refused(kind, text, "it is beyond what can be held"),
            },
            _ => refused(
                kind,
                text,
                "give a time without a zone, as 2026-01-31T23:59:59.999999, or use timestamptz",
            ),
        },
        Kind::TimestampTz(_) => match text.parse::<jiff::Timestamp>() {
            Ok(time) => instant(kind, text, time.as_nanosecond(), out),
            Err(_) => refused(kind, text, "give a time with its zone, as 2026-01-31T23:59:59.999999Z"),
        },
        _ => refused(kind, text, "it is a text"),
    }
}

/// Whether a text has no zone, which would be dropped without a word.
fn is_plain(text: &str) -> bool {
    let time = text.split_once(['T', 't', ' ']).map_or(text, |(_, time)| time);
    !time.contains(['Z', 'z', '+', '-', '['])
}

fn instant(kind: &Kind, text: &str, nanoseconds: i128, out: &mut BytesMut) -> Result<(), Refused> {
    let shifted = nanoseconds - EPOCH_MICROSECONDS * 1_000;
    out.put_i64(microseconds(kind, text, shifted)?);
    Ok(())
}

fn microseconds(kind: &Kind, text: &str, nanoseconds: i128) -> Result<i64, Refused> {
    let (Kind::Time(digits) | Kind::Timestamp(digits) | Kind::TimestampTz(digits)) = kind else {
        return refused(kind, text, "it is a time");
    };
    let unit = 1_000 * 10_i128.pow(6 - u32::from((*digits).min(6)));
    if nanoseconds % unit != 0 {
        return refused(
            kind,
            text,
            "it has more digits of a second than the column holds, and would be rounded",
        );
    }
    i64::try_from(nanoseconds / 1_000).map_err(|_| format!("{text} is no time that can be held"))
}
