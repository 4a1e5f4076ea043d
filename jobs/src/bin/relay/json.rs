//! JSON as it is written: checked, without white space, and no number is ever converted.
//!
//! Promises that a text that passes is JSON for every reader (RFC 8259: whole characters, no lone half of a surrogate
//! pair), and that everything between its white space is there, byte by byte. Knows no records.

use std::ops::Range;

/// Values inside of one another, at most.
const MOST_DEPTH: usize = 128;

/// A JSON text without white space between its values.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Json {
    pub text: String,
    /// If it is an object: names, and where their values are in the text.
    fields: Option<Vec<(String, Range<usize>)>>,
}

impl Json {
    /// Reads a text.
    ///
    /// # Errors
    /// What is wrong with it, and at which byte.
    pub fn read(bytes: &[u8]) -> Result<Self, String> {
        let text =
            std::str::from_utf8(bytes).map_err(|e| format!("not UTF-8, at byte {}", e.valid_up_to()))?;
        let mut reader = Reader { text, at: 0, out: String::with_capacity(text.len()), fields: Vec::new() };
        reader.space();
        let is_object = reader.peek() == Some(b'{');
        let done = reader.value(0).and_then(|()| {
            reader.space();
            if reader.peek().is_none() { Ok(()) } else { Err("more than one value") }
        });
        match done {
            Ok(()) => Ok(Self { text: reader.out, fields: is_object.then_some(reader.fields) }),
            Err(why) => Err(format!("not JSON: {why}, at byte {}", reader.at)),
        }
    }

    /// The fields of an object, in their order, each with the text of its value.
    pub fn fields(&self) -> Option<impl Iterator<Item = (&str, &str)>> {
        let fields = self.fields.as_ref()?;
        Some(fields.iter().map(|(name, at)| (name.as_str(), &self.text[at.clone()])))
    }

    /// The text of the value of a field.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields()?.find(|(field, _)| *field == name).map(|(_, value)| value)
    }
}

/// The content of the text of a JSON string.
pub fn string(text: &str) -> Option<String> {
    serde_json::from_str(text).ok()
}

/// A text as the text of a JSON string.
pub fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Whether a text is a number as JSON writes it.
pub fn is_number(text: &str) -> bool {
    let mut reader = Reader { text, at: 0, out: String::new(), fields: Vec::new() };
    reader.number().is_ok() && reader.at == text.len()
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
    out: String,
    fields: Vec<(String, Range<usize>)>,
}

impl Reader<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    /// Whether this byte is next; then it is taken.
    fn takes(&mut self, byte: u8) -> bool {
        let is_next = self.peek() == Some(byte);
        if is_next {
            self.at += 1;
            self.out.push(char::from(byte));
        }
        is_next
    }

    fn value(&mut self, depth: usize) -> Result<(), &'static str> {
        if depth > MOST_DEPTH {
            return Err("too many values inside of one another");
        }
        match self.peek() {
            Some(b'{') => self.object(depth),
            Some(b'[') => self.array(depth),
            Some(b'"') => self.string(),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(_) => self.word(),
            None => Err("it ends where a value is expected"),
        }
    }

    fn object(&mut self, depth: usize) -> Result<(), &'static str> {
        self.takes(b'{');
        self.space();
        if self.takes(b'}') {
            return Ok(());
        }
        loop {
            self.space();
            if self.peek() != Some(b'"') {
                return Err("the name of a field is expected");
            }
            let from = self.at;
            self.string()?;
            let name = from..self.at;
            self.space();
            if !self.takes(b':') {
                return Err("a colon is expected");
            }
            self.space();
            let value = self.out.len();
            self.value(depth + 1)?;
            if depth == 0 {
                let name = string(&self.text[name]).ok_or("the name of a field is no text")?;
                self.fields.push((name, value..self.out.len()));
            }
            self.space();
            if self.takes(b'}') {
                return Ok(());
            }
            if !self.takes(b',') {
                return Err("a comma or } is expected");
            }
        }
    }

    fn array(&mut self, depth: usize) -> Result<(), &'static str> {
        self.takes(b'[');
        self.space();
        if self.takes(b']') {
            return Ok(());
        }
        loop {
            self.space();
            self.value(depth + 1)?;
            self.space();
            if self.takes(b']') {
                return Ok(());
            }
            if !self.takes(b',') {
                return Err("a comma or ] is expected");
            }
        }
    }

    fn string(&mut self) -> Result<(), &'static str> {
        let from = self.at;
        self.at += 1;
        loop {
            match self.peek() {
                None => return Err("a text does not end"),
                Some(b'"') => break,
                Some(..0x20) => return Err("a control character in a text"),
                Some(b'\\') => self.escape()?,
                Some(_) => self.at += 1,
            }
        }
        self.at += 1;
        self.out.push_str(&self.text[from..self.at]);
        Ok(())
    }

    fn escape(&mut self) -> Result<(), &'static str> {
        self.at += 1;
        match self.peek() {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => {
                self.at += 1;
                Ok(())
            }
            Some(b'u') => match self.unit()? {
                0xdc00..0xe000 => Err("the second half of a surrogate pair without the first"),
                0xd800..0xdc00 => {
                    if !self.text[self.at..].starts_with("\\u") {
                        return Err("half of a surrogate pair");
                    }
                    self.at += 1;
                    if (0xdc00..0xe000).contains(&self.unit()?) {
                        Ok(())
                    } else {
                        Err("half of a surrogate pair")
                    }
                }
                _ => Ok(()),
            },
            _ => Err("an escape that JSON does not have"),
        }
    }

    /// `uXXXX`
    fn unit(&mut self) -> Result<u32, &'static str> {
        let digits = self.text.as_bytes().get(self.at + 1..self.at + 5).unwrap_or_default();
        let all = digits.len() == 4 && digits.iter().all(u8::is_ascii_hexdigit);
        let digits =
            std::str::from_utf8(digits).ok().filter(|_| all).ok_or("an escape needs four hex digits")?;
        self.at += 5;
        u32::from_str_radix(digits, 16).map_err(|_| "an escape needs four hex digits")
    }

    fn number(&mut self) -> Result<(), &'static str> {
        let from = self.at;
        let skip = |reader: &mut Self, byte: &[u8]| {
            let is_next = reader.peek().is_some_and(|next| byte.contains(&next));
            reader.at += usize::from(is_next);
            is_next
        };
        skip(self, b"-");
        if !skip(self, b"0") && self.digits() == 0 {
            return Err("a digit is expected");
        }
        if skip(self, b".") && self.digits() == 0 {
            return Err("a digit is expected");
        }
        if skip(self, b"eE") {
            skip(self, b"+-");
            if self.digits() == 0 {
                return Err("a digit is expected");
            }
        }
        self.out.push_str(&self.text[from..self.at]);
        Ok(())
    }

    fn digits(&mut self) -> usize {
        let from = self.at;
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        self.at - from
    }

    fn word(&mut self) -> Result<(), &'static str> {
        let rest = &self.text[self.at..];
        let word = ["null", "true", "false"].into_iter().find(|word| rest.starts_with(word));
        let word = word.ok_or("a value is expected")?;
        self.at += word.len();
        self.out.push_str(word);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn white_space_goes_and_everything_else_stays_as_it_was_written() {
        let json =
            Json::read(b" { \"a\" : 1.50 ,\n\"b c\":[ 12345678901234567890.1 , \" x \" ] } \r\n").unwrap();
        assert_eq!(json.text, r#"{"a":1.50,"b c":[12345678901234567890.1," x "]}"#);
        let fields: Vec<_> = json.fields().unwrap().collect();
        assert_eq!(fields, [("a", "1.50"), ("b c", r#"[12345678901234567890.1," x "]"#)]);
        assert!(Json::read(b"[1]").unwrap().fields().is_none());
        assert_eq!(Json::read(b"{}").unwrap().fields().unwrap().count(), 0);
        assert_eq!(Json::read(br#"{"a":{"b":1},"c":2}"#).unwrap().fields().unwrap().count(), 2);
    }

    /// Mutations of texts with everything in them, judged also by a parser that shares no code with this one.
    #[test]
    fn what_passes_is_what_another_parser_takes() {
        let whole = r#"{"a": [1, -2.5e+3, 0, "x\u00e9\ud83d\ude00\n\\", null], "b": {"c": true, "": false}, "ä": -0.0E1}"#;
        let pieces = [
            "", "\"", "\\", "\\u", "\\ud800", "0", "-", ".", "e", "{", "}", "[", "]", ",", ":", " ", "\n",
            "nul", "é",
        ];
        let (mut taken, mut refused) = (0, 0);
        let cuts: Vec<usize> = whole.char_indices().map(|(at, _)| at).collect();
        for (number, from) in cuts.iter().enumerate() {
            for to in cuts.iter().skip(number).take(4) {
                for piece in pieces {
                    let text = format!("{}{piece}{}", &whole[..*from], &whole[*to..]);
                    let theirs = serde_json::from_str::<serde_json::Value>(&text);
                    match Json::read(text.as_bytes()) {
                        Ok(json) => {
                            let again: serde_json::Value = serde_json::from_str(&json.text).unwrap();
                            assert_eq!(Some(&again), theirs.as_ref().ok(), "{text}");
                            taken += 1;
                        }
                        Err(why) => {
                            assert!(theirs.is_err(), "{text}: {why}");
                            refused += 1;
                        }
                    }
                }
            }
        }
        assert!(taken > 500 && refused > 500, "{taken} {refused}");
        assert!(
            Json::read("[".repeat(MOST_DEPTH + 2).as_bytes()).unwrap_err().contains("inside of one another")
        );
        assert!(Json::read(b"\"\xff\"").unwrap_err().contains("UTF-8"));
        // A number that other parsers cannot hold is a number.
        assert_eq!(Json::read(b"1e400").unwrap().text, "1e400");
    }

    #[test]
    fn numbers_are_told_from_texts_that_look_alike() {
        for text in ["0", "-0", "10", "1.50", "1e9", "-2.5E-3"] {
            assert!(is_number(text), "{text}");
        }
        for text in ["", "-", "01", "+1", "1.", ".5", "1e", "0x1", "1 ", " 1", "NaN", "1_0"] {
            assert!(!is_number(text), "{text}");
        }
    }
}
