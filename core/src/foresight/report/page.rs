//! The report as one self-contained HTML page: no script, no request to anywhere.

use std::fmt::Write as _;

use super::{Report, RunSettings, Speed, escape::escaped, picture::STYLE};

/// Widths of the picture, in pixels: for screens of at least 700 pixels, and for narrower ones.
const WIDE: u16 = 960;
const NARROW: u16 = 340;

const PAGE_STYLE: &str = "
:root{color-scheme:light dark}
body{margin:0 auto;max-width:1000px;padding:16px;font:15px/1.5 system-ui,sans-serif;color:#1f2328;background:#fff}
h1{font-size:1.4em;margin:.2em 0}h2{font-size:1.1em;margin:1.6em 0 .4em}
.wide svg,.narrow svg{width:100%;height:auto}.narrow{display:none}
.scroll{overflow-x:auto}
table{border-collapse:collapse;font-variant-numeric:tabular-nums}
th,td{padding:3px 10px;text-align:right;white-space:nowrap;border-bottom:1px solid #d1d9e0}
th:first-child,td:first-child{text-align:left;padding-left:0}
.settings td{text-align:left;white-space:normal}
pre{overflow-x:auto}
@media (max-width:700px){.wide{display:none}.narrow{display:block}}
@media (prefers-color-scheme:dark){body{color:#e6edf3;background:#0d1117}th,td{border-color:#3d444d}}";

impl Report {
    /// The report as an HTML page.
    pub fn html(&self) -> String {
        let title = escaped(&self.model);
        let mut page = format!(
            "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"><meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\"><title>Backtest of {title}</title><style>{PAGE_STYLE}{STYLE}</style></head>\n<body>\n<h1>Backtest of {title}</h1>\n"
        );
        for line in self.head_lines() {
            // Writing to a String cannot fail.
            let _ = writeln!(page, "<p>{}</p>", escaped(&line));
        }
        if !self.runs.is_empty() {
            page.push_str(&self.results());
        }
        if !self.findings.is_empty() {
            page.push_str("<h2>Notes</h2>\n<ul>\n");
            for finding in &self.findings {
                let _ = writeln!(page, "<li>{}: {}</li>", escaped(finding.reason), escaped(&finding.message));
            }
            page.push_str("</ul>\n");
        }
        if let Some(explained) = &self.explained {
            let text: Vec<String> = explained.text().lines().map(escaped).collect();
            let _ = writeln!(page, "<h2>Explained</h2>\n<pre>{}</pre>", text.join("\n"));
        }
        page.push_str("</body></html>\n");
        page
    }

    fn results(&self) -> String {
        let mut text = format!(
            "<div class=\"wide\">{}</div>\n<div class=\"narrow\">{}</div>\n<h2>Results</h2>\n<div class=\"scroll\"><table>\n",
            self.picture(WIDE),
            self.picture(NARROW)
        );
        for (index, row) in self.rows().iter().enumerate() {
            let (open, close) = if index == 0 { ("<th scope=\"col\">", "</th>") } else { ("<td>", "</td>") };
            let cells: Vec<String> =
                row.iter().map(|cell| format!("{open}{}{close}", escaped(cell))).collect();
            let _ = writeln!(text, "<tr>{}</tr>", cells.concat());
        }
        text.push_str(
            "</table></div>\n<h2>Settings</h2>\n<div class=\"scroll\"><table class=\"settings\">\n",
        );
        for run in &self.runs {
            let Some(settings) = &run.settings else { continue };
            let _ = writeln!(
                text,
                "<tr><td>{}</td><td>{}</td></tr>",
                escaped(&run.name),
                escaped(&described(settings))
            );
        }
        text.push_str("</table></div>\n");
        text
    }
}

fn described(settings: &RunSettings) -> String {
    let targets: Vec<String> =
        settings.targets.iter().map(|target| format!("{} {}", target.trigger, target.target)).collect();
    format!(
        "{} to {} ServingGroups; target of {}; scale up by {}; scale down by {}",
        settings.min,
        settings.max,
        targets.join(", "),
        speed(&settings.scale_up),
        speed(&settings.scale_down)
    )
}

fn speed(speed: &Speed) -> String {
    format!("{} of {} after {} s", speed.select, speed.policies.join(", "), speed.window)
}
