//! Quoting of label values by the rules of Prometheus' lexer and of RE2.

use std::fmt::Write as _;

/// Special characters of RE2 (Go `regexp.QuoteMeta`).
const RE2_SPECIAL: &str = r"\.+*?()|[]{}^$";

/// Writes `value` as a double-quoted PromQL string.
///
/// Source: Prometheus `util/strutil/quote.go`. `\xNN` is one byte there, so control characters from 0x80 on
/// need `\u`.
pub fn quote(value: &str) -> String {
    let mut out = String::with_capacity(value.len() + 2);
    out.push('"');
    for c in value.chars() {
        match c {
            '\\' => out.push_str(r"\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str(r"\n"),
            '\r' => out.push_str(r"\r"),
            '\t' => out.push_str(r"\t"),
            c if c.is_control() => push_code_point(&mut out, c),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// Writes a regular expression that matches exactly the given values, as a PromQL string for `=~`.
///
/// Prometheus anchors regular expressions at both ends, so an alternation needs no anchors of its own.
pub fn alternation<'a>(values: impl IntoIterator<Item = &'a str>) -> String {
    let quoted: Vec<String> = values.into_iter().map(re2_quote).collect();
    quote(&quoted.join("|"))
}

/// Writes a regular expression (RE2) that matches exactly the given value.
pub fn re2_quote(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for c in value.chars() {
        if RE2_SPECIAL.contains(c) {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

fn push_code_point(out: &mut String, c: char) {
    // Writing to a String cannot fail.
    let _ = write!(out, "\\u{:04x}", u32::from(c));
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("llama", r#""llama""#)]
    #[case(r#"a"b"#, r#""a\"b""#)]
    #[case(r"a\b", r#""a\\b""#)]
    #[case("a\nb\rc\td", r#""a\nb\rc\td""#)]
    #[case("a\u{1}b\u{85}", r#""a\u0001b\u0085""#)]
    #[case(r#"x"} or vector(1e9) #"#, r#""x\"} or vector(1e9) #""#)]
    #[case("模型 – 7B", r#""模型 – 7B""#)]
    fn quotes(#[case] value: &str, #[case] expected: &str) {
        assert_eq!(quote(value), expected);
    }

    #[rstest]
    #[case(&["llama"], r#""llama""#)]
    #[case(&["a.b", "c|d"], r#""a\\.b|c\\|d""#)]
    #[case(&["x\"y", r"w\z"], r#""x\"y|w\\\\z""#)]
    fn alternates(#[case] values: &[&str], #[case] expected: &str) {
        assert_eq!(alternation(values.iter().copied()), expected);
    }
}
