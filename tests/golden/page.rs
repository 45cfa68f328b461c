//! The HTML page and the picture of `backtest`: without script, well-formed, and as a real browser shows the page.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use rstest::rstest;
use serde_json::Value;

const BROWSER: &str = "/usr/bin/chromium";
const ARGUMENTS: [&str; 10] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--virtual-time-budget=5000",
    "--dump-dom",
];

/// Measures the page in a frame, since the page itself has no script.
const MEASURE: &str = r#"<!doctype html><body><iframe id="frame" width="WIDTH" height="900" srcdoc="PAGE"></iframe><pre id="out"></pre><script>
frame.onload = () => {
  const page = frame.contentDocument, root = page.documentElement;
  const shown = [...page.querySelectorAll("svg")].filter(svg => svg.getBoundingClientRect().width > 0);
  const style = getComputedStyle(page.body), picture = getComputedStyle(shown[0]);
  out.textContent = JSON.stringify({
    overflow: root.scrollWidth - root.clientWidth,
    pictures: shown.length,
    letters: 12 * shown[0].getBoundingClientRect().width / shown[0].viewBox.baseVal.width,
    background: style.backgroundColor, text: style.color, labels: picture.color,
    runs: page.querySelector("table").rows.length,
    lines: shown[0].querySelectorAll("path.run").length,
    marks: shown[0].querySelectorAll("text").length,
  });
};
</script></body>"#;

fn backtest(format: &str) -> String {
    let arguments = [
        "backtest",
        "--load",
        "config/samples/week.csv",
        "--set",
        "target=8",
        "--compare",
        "static",
        "-o",
        format,
    ];
    let output =
        Command::new(env!("CARGO_BIN_EXE_kthena-keda")).args(arguments).env_clear().output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_page_is_self_contained() {
    let page = backtest("html");
    for forbidden in ["<script", "javascript:", "onload=", "href", "src=", "url(", "@import"] {
        assert!(!page.contains(forbidden), "{forbidden}");
    }
    assert!(page.len() < 100_000, "{} bytes", page.len());
}

#[test]
fn the_picture_is_a_valid_svg() {
    let picture = backtest("svg");
    let tree = resvg::usvg::Tree::from_str(&picture, &resvg::usvg::Options::default()).unwrap();
    assert!(tree.size().width() > 900.0 && tree.size().height() > 300.0);
}

#[test]
fn the_picture_in_the_readme_is_that_of_the_command() {
    let arguments = [
        "backtest",
        "--load",
        "config/samples/week.csv",
        "--set",
        "max=20",
        "--compare",
        "static",
        "-o",
        "svg",
    ];
    let output =
        Command::new(env!("CARGO_BIN_EXE_kthena-keda")).args(arguments).env_clear().output().unwrap();
    let picture = fs::read("docs/images/backtest.svg").unwrap();
    assert!(output.stdout == picture, "write the output of kthena-keda {} to it", arguments.join(" "));
}

/// Lightness of a color as a browser writes it, such as `rgb(255, 0, 0)`: 0 to 255.
fn lightness(color: &Value) -> u32 {
    let color = color.as_str().unwrap();
    let parts: Vec<u32> = color
        .trim_start_matches("rgb(")
        .trim_end_matches(')')
        .split(", ")
        .map(|part| part.parse().unwrap())
        .collect();
    parts.iter().sum::<u32>() / 3
}

#[rstest]
#[case::phone(360, false)]
#[case::phone_at_night(360, true)]
#[case::desktop(1280, false)]
#[case::desktop_at_night(1280, true)]
fn a_browser_shows_the_page(#[case] width: u32, #[case] is_dark: bool) {
    if !Path::new(BROWSER).exists() {
        println!("SKIPPED: this needs {BROWSER}; run apt-get install chromium");
        return;
    }
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("page-{width}-{is_dark}"));
    fs::create_dir_all(&folder).unwrap();
    let page = backtest("html").replace('&', "&amp;").replace('"', "&quot;");
    let measure = MEASURE.replace("WIDTH", &width.to_string()).replace("PAGE", &page);
    fs::write(folder.join("measure.html"), measure).unwrap();
    let output = Command::new(BROWSER)
        .args(ARGUMENTS)
        .arg(format!("--blink-settings=preferredColorScheme={}", u8::from(!is_dark)))
        .arg(format!("--user-data-dir={}", folder.join("profile").display()))
        .arg(format!("file://{}", folder.join("measure.html").display()))
        .stderr(Stdio::null())
        .output()
        .unwrap();
    let dom = String::from_utf8(output.stdout).unwrap();
    let (_, found) = dom.rsplit_once("<pre id=\"out\">").unwrap();
    let (found, _) = found.split_once("</pre>").unwrap();
    let found: Value = serde_json::from_str(found).unwrap();
    assert_eq!(found["overflow"], 0, "nothing is cut off: {found}");
    assert_eq!(found["pictures"], 1, "{found}");
    assert!((9.5..=14.0).contains(&found["letters"].as_f64().unwrap()), "letters are legible: {found}");
    let background = lightness(&found["background"]);
    assert_eq!(background < 128, is_dark, "{found}");
    for text in ["text", "labels"] {
        assert!(background.abs_diff(lightness(&found[text])) > 128, "{text} stands out: {found}");
    }
    let shape = (&found["runs"], &found["lines"]);
    assert_eq!(shape, (&4.into(), &9.into()), "three runs in table, legend and both panels: {found}");
    assert!(found["marks"].as_u64().unwrap() > 15, "both axes have marks: {found}");
}
