//! Queries with placeholders, which become strings that cannot change the query's structure.

use super::{
    query::{Query, QueryError},
    quote::{alternation, quote},
};

/// A query with `{{model}}`, `{{namespace}}` and `{{name}}` in it, which parses and answers one value whatever they become.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(Vec<Part>);

/// What a template is filled with.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// The model names that were asked for.
    pub models: &'a [&'a str],
    /// Further names that count as the model's.
    pub adapters: &'a [&'a str],
    /// The ModelServing's namespace.
    pub namespace: &'a str,
    /// The ModelServing's name.
    pub name: &'a str,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Placeholder(Placeholder, Place),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Placeholder {
    Model,
    Namespace,
    Name,
}

/// How a placeholder is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// After `=` or `!=`.
    Equal,
    /// After `=~` or `!~`.
    Pattern,
    /// Anywhere else.
    Other,
}

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    /// When a placeholder is unknown or stands where it cannot be filled in, or the query is none that KEDA can read.
    pub fn parse(text: &str) -> Result<Self, QueryError> {
        let template = Self(split(text.trim())?);
        // Strings are all that a placeholder becomes, so one example stands for all.
        let example = template.fill(&Subject { models: &["m"], adapters: &[], namespace: "n", name: "n" })?;
        Query::parse(&example.to_string())?;
        Ok(template)
    }

    /// Puts the model in.
    ///
    /// # Errors
    /// When there are several names where only one can stand.
    pub fn fill(&self, subject: &Subject<'_>) -> Result<Query, QueryError> {
        let text: Result<String, QueryError> = self.0.iter().map(|part| part.fill(subject)).collect();
        text.map(Query)
    }
}

impl Part {
    fn fill(&self, subject: &Subject<'_>) -> Result<String, QueryError> {
        let one = |value: &str, place: Place| match place {
            Place::Pattern => alternation([value]),
            Place::Equal | Place::Other => quote(value),
        };
        match self {
            Self::Text(text) => Ok(text.clone()),
            Self::Placeholder(Placeholder::Namespace, place) => Ok(one(subject.namespace, *place)),
            Self::Placeholder(Placeholder::Name, place) => Ok(one(subject.name, *place)),
            Self::Placeholder(Placeholder::Model, Place::Pattern) => {
                Ok(alternation(subject.models.iter().chain(subject.adapters).copied()))
            }
            Self::Placeholder(Placeholder::Model, Place::Equal | Place::Other) => match subject.models {
                [model] => Ok(quote(model)),
                models => Err(QueryError(format!(
                    "it compares {{{{model}}}} by = and there are {} model names; compare by =~ instead",
                    models.len()
                ))),
            },
        }
    }
}

fn split(text: &str) -> Result<Vec<Part>, QueryError> {
    let mut parts = Vec::new();
    let mut rest = text;
    let mut before = String::new();
    while let Some((plain, after)) = rest.split_once("{{") {
        let Some((name, after)) = after.split_once("}}") else {
            return Err(QueryError(
                "a placeholder is not closed; write {{model}}, {{namespace}} or {{name}}".to_owned(),
            ));
        };
        let placeholder = match name.trim() {
            "model" => Placeholder::Model,
            "namespace" => Placeholder::Namespace,
            "name" => Placeholder::Name,
            other => {
                return Err(QueryError(format!(
                    "unknown placeholder {{{{{other}}}}}; there are {{{{model}}}}, {{{{namespace}}}} and {{{{name}}}}"
                )));
            }
        };
        before.push_str(plain);
        let place = place(&before, after, name.trim())?;
        if placeholder == Placeholder::Model && place == Place::Other {
            return Err(QueryError(
                "{{model}} stands for what a label is compared with; write it after =, !=, =~ or !~"
                    .to_owned(),
            ));
        }
        parts.push(Part::Text(plain.to_owned()));
        parts.push(Part::Placeholder(placeholder, place));
        before.push_str("\"\"");
        rest = after;
    }
    parts.push(Part::Text(rest.to_owned()));
    Ok(parts)
}

fn place(before: &str, after: &str, name: &str) -> Result<Place, QueryError> {
    let quotes = ['"', '\'', '`'];
    if before.ends_with(quotes) || after.starts_with(quotes) {
        return Err(QueryError(format!("{{{{{name}}}}} brings its own quotes; remove those around it")));
    }
    if is_in_a_string(before) {
        return Err(QueryError(format!(
            "{{{{{name}}}}} stands within a string, which what it becomes could end; write it as a string of its own"
        )));
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

/// Whether a string is open at the end of a text, by the rules of Prometheus' lexer (`promql/parser/lex.go`).
fn is_in_a_string(text: &str) -> bool {
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
        let subject = Subject { models, adapters: &["an.adapter"], namespace: "team-a", name: "chat.v1" };
        template.fill(&subject).map(|query| query.to_string()).map_err(|error| error.to_string())
    }

    #[rstest]
    #[case("sum(q{model=~{{model}}})", r#"sum(q{model=~"a\"b|c|an\\.adapter"})"#)]
    #[case("sum(q{model !~ {{ model }}})", r#"sum(q{model !~ "a\"b|c|an\\.adapter"})"#)]
    #[case("sum(q{ns={{namespace}},n=~{{name}}})", r#"sum(q{ns="team-a",n=~"chat\\.v1"})"#)]
    #[case("sum(label_replace(q, 'x', {{name}}, '', ''))", r"sum(label_replace(q, 'x', 'chat.v1', '', ''))")]
    #[case("sum(q)", "sum(q)")]
    #[case("# it's 5\\\nsum(q{a='\\'',n={{name}}})", "# it's 5\\\nsum(q{a='\\'',n='chat.v1'})")]
    fn placeholders_become_strings(#[case] text: &str, #[case] expected: &str) {
        assert_eq!(fill(text, &["a\"b", "c"]).unwrap().replace("\"chat.v1\"", "'chat.v1'"), expected);
    }

    #[test]
    fn one_name_is_compared_as_it_is() {
        assert_eq!(fill("sum(q{model={{model}}})", &["a.b"]).unwrap(), r#"sum(q{model="a.b"})"#);
        assert!(fill("sum(q{model={{model}}})", &["a", "b"]).unwrap_err().contains("2 model names"));
    }

    #[rstest]
    #[case("sum(q{model=~{{modle}}})", "unknown placeholder {{modle}}")]
    #[case("sum(q{model=~{{model})", "not closed")]
    #[case("sum(q{model=\"{{model}}\"})", "brings its own quotes")]
    #[case("sum(q{a='x={{model}} y'})", "within a string")]
    #[case("sum(q{a=`x=~ {{name}} y`})", "within a string")]
    #[case(r#"sum(q{a="\\\"x={{model}} y"})"#, "within a string")]
    #[case("sum(q) > {{model}}", "after =, !=")]
    #[case("sum(q) == {{model}}", "after =, !=")]
    #[case("sum(q{model=~{{model}}}", "does not parse")]
    #[case("q{model=~{{model}}}", "several values")]
    fn a_bad_template_is_refused(#[case] text: &str, #[case] why: &str) {
        let error = Template::parse(text).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }
}
