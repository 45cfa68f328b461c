//! Queries with placeholders; the values become strings that cannot change the structure of the query.

use super::{
    query::{Query, QueryError, without_comments},
    quote::{alternation, quote},
};
use crate::domain::SeriesMatchers;

/// A query with the placeholders `{{model}}`, `{{namespace}}`, `{{name}}` and `{{matchers}}`, which is valid
/// for all of their values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(Vec<Part>);

/// Values of the placeholders.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// Model names of the ModelServing.
    pub models: &'a [&'a str],
    /// Names that it has by its routes, such as adapters; a query for one name leaves them out.
    pub adapters: &'a [&'a str],
    /// Namespace of the ModelServing.
    pub namespace: &'a str,
    /// Name of the ModelServing.
    pub name: &'a str,
    /// Label matchers of the profile.
    pub matchers: &'a SeriesMatchers,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Placeholder(Placeholder, Place),
    Matchers,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Placeholder {
    Model,
    Namespace,
    Name,
}

/// Operator before a placeholder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// After `=` or `!=`.
    Equal,
    /// After `=~` or `!~`.
    Pattern,
    /// No comparison of a label.
    Other,
}

impl Template {
    /// Parses a template.
    ///
    /// # Errors
    /// If a placeholder is unknown or misplaced, or [`Query::parse`] rejects the query.
    pub fn parse(text: &str) -> Result<Self, QueryError> {
        let template = Self(split(&without_comments(text))?);
        // Each placeholder becomes a string or a matcher, so one example represents all values.
        let matchers = SeriesMatchers::default();
        let subject =
            Subject { models: &["m"], adapters: &[], namespace: "n", name: "n", matchers: &matchers };
        Query::parse(&template.fill(&subject)?.to_string())?;
        Ok(template)
    }

    /// `true` if the query depends on the model names.
    pub fn uses_model(&self) -> bool {
        self.0.iter().any(|part| matches!(part, Part::Placeholder(Placeholder::Model, _)))
    }

    /// `true` if the query compares the model name by `=` or `!=`, so that it counts one name only.
    pub fn uses_one_model(&self) -> bool {
        self.0.iter().any(|part| matches!(part, Part::Placeholder(Placeholder::Model, Place::Equal)))
    }

    /// Replaces the placeholders.
    ///
    /// # Errors
    /// If a ModelServing has several names, and the query compares `{{model}}` by `=` or `!=`.
    pub fn fill(&self, subject: &Subject<'_>) -> Result<Query, QueryError> {
        let text: Result<String, QueryError> = self.0.iter().map(|part| part.fill(subject)).collect();
        text.map(Query)
    }
}

impl Place {
    fn quote(self, value: &str) -> String {
        match self {
            Self::Pattern => alternation([value]),
            Self::Equal | Self::Other => quote(value),
        }
    }
}

impl Part {
    fn fill(&self, subject: &Subject<'_>) -> Result<String, QueryError> {
        match self {
            Self::Text(text) => Ok(text.clone()),
            Self::Matchers => Ok(matchers(subject.matchers)),
            Self::Placeholder(Placeholder::Namespace, place) => Ok(place.quote(subject.namespace)),
            Self::Placeholder(Placeholder::Name, place) => Ok(place.quote(subject.name)),
            Self::Placeholder(Placeholder::Model, Place::Pattern) => {
                Ok(alternation(subject.models.iter().chain(subject.adapters).copied()))
            }
            Self::Placeholder(Placeholder::Model, Place::Equal | Place::Other) => match subject.models {
                [model] => Ok(quote(model)),
                models => Err(QueryError::expected(format!(
                    "{{{{model}}}} after =~ or !~, because the ModelServing has {} model names",
                    models.len()
                ))),
            },
        }
    }
}

/// The matchers between the braces of a selector; without any, one that every series meets, so that commas
/// around it stay valid.
fn matchers(matchers: &SeriesMatchers) -> String {
    let all: Vec<String> =
        matchers.iter().map(|(label, value)| format!("{label}={}", quote(value))).collect();
    if all.is_empty() { "job=~\".*\"".to_owned() } else { all.join(",") }
}

fn split(text: &str) -> Result<Vec<Part>, QueryError> {
    let mut parts = Vec::new();
    let mut rest = text;
    let mut before = String::new();
    while let Some((plain, after)) = split_at_placeholder(rest) {
        let Some((name, after)) = after.split_once("}}") else {
            return Err(QueryError::expected("}} at the end of each placeholder"));
        };
        before.push_str(plain);
        parts.push(Part::Text(plain.to_owned()));
        let (part, example) = placeholder(name.trim(), &before, after)?;
        parts.push(part);
        before.push_str(example);
        rest = after;
    }
    parts.push(Part::Text(rest.to_owned()));
    Ok(parts)
}

/// The text before `{{` and after it. Of three braces the first one opens a selector.
fn split_at_placeholder(text: &str) -> Option<(&str, &str)> {
    let at = text.find("{{")?;
    let at = if text.get(at..).is_some_and(|rest| rest.starts_with("{{{")) { at + 1 } else { at };
    Some((text.get(..at)?, text.get(at + 2..)?))
}

/// The placeholder of this name, and a text of the same kind as its values.
fn placeholder(name: &str, before: &str, after: &str) -> Result<(Part, &'static str), QueryError> {
    let placeholder = match name {
        "matchers" => return matchers_part(before, after),
        "model" => Placeholder::Model,
        "namespace" => Placeholder::Namespace,
        "name" => Placeholder::Name,
        other => {
            return Err(QueryError::expected(format!(
                "the placeholders {{{{model}}}}, {{{{namespace}}}}, {{{{name}}}} and {{{{matchers}}}}, but {{{{{other}}}}} is unknown"
            )));
        }
    };
    let place = place(before, after, name)?;
    if placeholder == Placeholder::Model && place == Place::Other {
        return Err(QueryError::expected("{{model}} after =, !=, =~ or !~"));
    }
    Ok((Part::Placeholder(placeholder, place), "\"\""))
}

/// Accepts `{{matchers}}` only as one of the matchers of a selector.
fn matchers_part(before: &str, after: &str) -> Result<(Part, &'static str), QueryError> {
    let is_matcher = before.trim_end().ends_with(['{', ',']) && after.trim_start().starts_with(['}', ',']);
    if has_open_string(before) || !is_matcher {
        return Err(QueryError::expected("{{matchers}} between the braces of a selector"));
    }
    Ok((Part::Matchers, "x=\"\""))
}

fn place(before: &str, after: &str, name: &str) -> Result<Place, QueryError> {
    let quotes = ['"', '\'', '`'];
    if before.ends_with(quotes) || after.starts_with(quotes) {
        return Err(QueryError::expected(format!(
            "{{{{{name}}}}} without quotes around it, because it adds them"
        )));
    }
    if has_open_string(before) {
        return Err(QueryError::expected(format!("{{{{{name}}}}} as a whole string, not within one")));
    }
    let before = before.trim_end();
    Ok(if before.ends_with("=~") || before.ends_with("!~") {
        Place::Pattern
    } else if before.ends_with('=')
        && !["==", ">=", "<="].iter().any(|comparison| before.ends_with(comparison))
    {
        Place::Equal
    } else {
        Place::Other
    })
}

/// `true` if a string is open at the end of the text, by the rules of Prometheus' lexer
/// (`promql/parser/lex.go`).
fn has_open_string(text: &str) -> bool {
    let mut open = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (open, c) {
            (None, '"' | '\'' | '`' | '#') => open = Some(c),
            (Some('"' | '\''), '\\') => drop(chars.next()),
            (Some('#'), '\n') => open = None,
            (Some(quote), _) if quote == c && quote != '#' => open = None,
            _ => {}
        }
    }
    open.is_some_and(|quote| quote != '#')
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn fill(text: &str, models: &[&str]) -> Result<String, String> {
        let template = Template::parse(text).map_err(|error| error.to_string())?;
        let matchers = [("cluster".to_owned(), r#"e"u"#.to_owned())].into_iter().collect();
        let subject = Subject {
            models,
            adapters: &["an.adapter"],
            namespace: "team-a",
            name: "chat.v1",
            matchers: &matchers,
        };
        template.fill(&subject).map(|query| query.to_string()).map_err(|error| error.to_string())
    }

    #[rstest]
    #[case("sum(q{model=~{{model}}})", r#"sum(q{model=~"a\"b|c|an\\.adapter"})"#)]
    #[case("sum(q{model !~ {{ model }}})", r#"sum(q{model !~ "a\"b|c|an\\.adapter"})"#)]
    #[case("sum(q{ns={{namespace}},n=~{{name}}})", r#"sum(q{ns="team-a",n=~"chat\\.v1"})"#)]
    #[case("sum(label_replace(q, 'x', {{name}}, '', ''))", r"sum(label_replace(q, 'x', 'chat.v1', '', ''))")]
    #[case("sum(q)", "sum(q)")]
    #[case("# it's {{5}}\\\nsum(q{a='\\'#',n={{name}}}) # x", "sum(q{a='\\'#',n='chat.v1'})")]
    #[case("sum(q{{{matchers}}})", r#"sum(q{cluster="e\"u"})"#)]
    #[case("sum(q{ {{matchers}},a=~{{model}} })", r#"sum(q{ cluster="e\"u",a=~"a\"b|c|an\\.adapter" })"#)]
    #[case("sum(q{a='b', {{ matchers }}})", r#"sum(q{a='b', cluster="e\"u"})"#)]
    fn placeholders_become_strings(#[case] text: &str, #[case] expected: &str) {
        assert_eq!(fill(text, &["a\"b", "c"]).unwrap().replace("\"chat.v1\"", "'chat.v1'"), expected);
    }

    #[test]
    fn compares_one_name_by_equality() {
        assert_eq!(fill("sum(q{model={{model}}})", &["a.b"]).unwrap(), r#"sum(q{model="a.b"})"#);
        assert!(fill("sum(q{model={{model}}})", &["a", "b"]).unwrap_err().contains("2 model names"));
    }

    #[rstest]
    #[case("sum(q{model=~{{modle}}})", "{{modle}} is unknown")]
    #[case("sum(q{model=~{{model})", "}} at the end of each placeholder")]
    #[case("sum(q{model=\"{{model}}\"})", "without quotes around it")]
    #[case("sum(q{a='x={{model}} y'})", "as a whole string, not within one")]
    #[case("sum(q{a=`x=~ {{name}} y`})", "as a whole string, not within one")]
    #[case(r#"sum(q{a="\\\"x={{model}} y"})"#, "as a whole string, not within one")]
    #[case("sum(q) > {{model}}", "{{model}} after =, !=")]
    #[case("sum(q) == {{model}}", "{{model}} after =, !=")]
    #[case("sum(q{a='{{matchers}}'})", "{{matchers}} between the braces of a selector")]
    #[case("sum(q{a=',{{matchers}},'})", "{{matchers}} between the braces of a selector")]
    #[case("sum by ({{matchers}}) (q)", "{{matchers}} between the braces of a selector")]
    #[case("sum(q{model=~{{model}}}", "a PromQL query: ")]
    #[case("q{model=~{{model}}}", "returns one value")]
    fn rejects_invalid_templates(#[case] text: &str, #[case] expected: &str) {
        let error = Template::parse(text).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}
