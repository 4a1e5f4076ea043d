//! Patterns for names of topics: `*` stands for any characters, also for none. It cannot be in a name.

/// Whether this is a pattern, and no name.
pub(crate) fn is_pattern(text: &str) -> bool {
    text.contains('*')
}

/// Whether a name is as the pattern says, from its beginning to its end.
pub(crate) fn matches(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = name.strip_prefix(parts.next().unwrap_or_default()) else { return false };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        // The first place is the best one: what is left for the others is longest.
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_a_whole_name_with_anything_at_its_stars() {
        for (pattern, name) in [
            ("a", "a"),
            ("*", ""),
            ("*", "a"),
            ("orders-*", "orders-"),
            ("orders-*", "orders-eu"),
            ("*-eu", "orders-eu"),
            ("a*b*c", "abc"),
            ("a*b*c", "a-b-b-c"),
            ("a*aa", "aaaa"),
        ] {
            assert!(matches(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in
            [("a", "ab"), ("orders-*", "xorders-"), ("a*b*c", "ac"), ("a*a", "a"), ("*a", "ab")]
        {
            assert!(!matches(pattern, name), "{pattern} {name}");
        }
    }
}
