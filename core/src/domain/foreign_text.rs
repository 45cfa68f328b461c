//! Text of others in messages: names and values of objects, and messages of other components.
//!
//! Such text may hold terminal escape sequences, marks that reverse the direction of writing, and characters
//! without width. Every message escapes them, and repeats a bounded part of the text only.

use std::{borrow::Cow, fmt::Write as _};

/// Characters of a value that a message repeats; the chart's admission policy cuts at the same length.
const QUOTED_MAX: usize = 64;

/// Characters of a name in a list; those of an object with its namespace have up to 317.
const NAME_MAX: usize = 320;
/// Characters of the path of a field.
const FIELD_PATH_MAX: usize = 96;

/// The text in quotes, escaped and cut to 64 characters.
pub fn quoted(text: &str) -> String {
    let (shown, rest) = match text.char_indices().nth(QUOTED_MAX) {
        Some((cut, _)) => (text.get(..cut).unwrap_or_default(), "..."),
        None => (text, ""),
    };
    format!("\"{}{rest}\"", printable(&shown.replace('\\', r"\\").replace('"', r#"\""#)))
}

/// The text without quotes, escaped and cut to 64 characters.
pub fn shortened(text: &str) -> String {
    shortened_to(QUOTED_MAX, text)
}

/// The text without quotes, escaped and cut to `max` characters.
pub(crate) fn shortened_to(max: usize, text: &str) -> String {
    match text.char_indices().nth(max) {
        Some((cut, _)) => format!("{}…", printable(text.get(..cut).unwrap_or_default())),
        None => printable(text).into_owned(),
    }
}

/// The text with every character escaped that a terminal or a browser does not show as itself.
pub fn printable(text: &str) -> Cow<'_, str> {
    if text.chars().all(is_printable) {
        return text.into();
    }
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if is_printable(c) {
            escaped.push(c);
        } else {
            // Writing to a String cannot fail.
            let _ = write!(escaped, "{}", c.escape_debug());
        }
    }
    escaped.into()
}

/// Quotes and backslashes are printable; [`char::escape_debug`] escapes them too.
fn is_printable(c: char) -> bool {
    matches!(c, ' '..='~') || matches!(c.escape_debug().next(), Some(first) if first != '\\')
}

/// The first `max` names, each escaped and cut, and `and others` if there are more. Their number would change
/// with every object that is created or deleted.
pub fn listed<S: AsRef<str>>(names: &[S], max: usize) -> String {
    let shown: Vec<String> =
        names.iter().take(max).map(|name| shortened_to(NAME_MAX, name.as_ref())).collect();
    let more = if names.len() > max { " and others" } else { "" };
    format!("{}{more}", shown.join(", "))
}

/// A JSON pointer (RFC 6901) as a path, such as `spec.fallback`, escaped and cut.
pub fn field_path(pointer: &str) -> String {
    // An escaped character takes two, so this much is longer than the result whatever it holds.
    let shown: String = pointer.chars().take(2 * FIELD_PATH_MAX + 2).collect();
    let tokens = shown.trim_start_matches('/').split('/');
    let fields: Vec<String> = tokens.map(|token| token.replace("~1", "/").replace("~0", "~")).collect();
    shortened_to(FIELD_PATH_MAX, &fields.join("."))
}

/// The beginning of a text, at most `max` bytes with a final `…` where it was cut.
pub fn cut(text: &str, max: usize) -> Cow<'_, str> {
    const ELLIPSIS: &str = "…";
    if text.len() <= max {
        return text.into();
    }
    let end = text.floor_char_boundary(max.saturating_sub(ELLIPSIS.len()));
    format!("{}{ELLIPSIS}", text.get(..end).unwrap_or_default()).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case::terminal("\u{1b}[2Jgood\u{7}", r"\u{1b}[2Jgood\u{7}")]
    #[case::lines("a\r\nb\tc", r"a\r\nb\tc")]
    #[case::c1("\u{9b}2J", r"\u{9b}2J")]
    #[case::bidi("safe\u{202e}gpj.\u{2066}", r"safe\u{202e}gpj.\u{2066}")]
    #[case::marks("\u{200e}\u{200f}\u{61c}", r"\u{200e}\u{200f}\u{61c}")]
    #[case::zero_width(
        "a\u{200b}\u{200d}\u{2060}\u{feff}\u{ad}b",
        r"a\u{200b}\u{200d}\u{2060}\u{feff}\u{ad}b"
    )]
    #[case::separators("\u{2028}\u{2029}\u{a0}", r"\u{2028}\u{2029}\u{a0}")]
    #[case::tags("\u{e0041}", r"\u{e0041}")]
    #[case::plain(r#"it's "a" \ b, é 模型 …"#, r#"it's "a" \ b, é 模型 …"#)]
    fn escapes_what_is_not_shown_as_itself(#[case] text: &str, #[case] expected: &str) {
        assert_eq!(printable(text), expected);
        assert_eq!(printable(expected), expected, "escaping twice changes nothing");
        assert_eq!(printable(&quoted(text)), quoted(text), "a quoted text is printable");
    }

    #[test]
    fn lists_the_first_names() {
        assert_eq!(listed(&["a", "b\u{1b}"], 2), r"a, b\u{1b}");
        assert_eq!(listed(&["a", "b", "c"], 2), "a, b and others");
        assert_eq!(listed(&[""; 0], 2), "");
    }

    #[rstest]
    #[case::field("/spec/triggers/0/metadata", "spec.triggers.0.metadata")]
    #[case::label("/metadata/labels/a.b~1c~0d", "metadata.labels.a.b/c~d")]
    #[case::terminal("/spec/\u{1b}", r"spec.\u{1b}")]
    fn writes_a_pointer_as_a_path(#[case] pointer: &str, #[case] expected: &str) {
        assert_eq!(field_path(pointer), expected);
        assert!(field_path(&"/x".repeat(500)).len() < 200);
    }

    #[test]
    fn quotes_and_cuts() {
        assert_eq!(quoted("x\n\u{202e}\""), r#""x\n\u{202e}\"""#);
        assert_eq!(quoted(&"é".repeat(64)), format!("\"{}\"", "é".repeat(64)));
        assert_eq!(quoted(&"é".repeat(65)), format!("\"{}...\"", "é".repeat(64)));
        assert_eq!(shortened(&"é".repeat(65)), format!("{}…", "é".repeat(64)));
        assert_eq!(shortened("a\u{1b}"), r"a\u{1b}");
    }

    #[rstest]
    #[case("short", 5, "short")]
    #[case("abcdefgh", 7, "abcd…")]
    #[case("éééé", 6, "é…")]
    fn cuts_between_characters(#[case] text: &str, #[case] max: usize, #[case] expected: &str) {
        assert_eq!(cut(text, max), expected);
        assert!(cut(text, max).len() <= max);
    }
}
