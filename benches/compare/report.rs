//! Tables and charts of what was measured.

use std::fmt::Write;

use serde_json::Value;

/// The runs of one system on one workload.
struct Line<'r> {
    workload: &'r str,
    system: &'r str,
    runs: Vec<&'r Value>,
}

impl Line<'_> {
    /// The median of a figure over all runs that have it; none if one of them was wrong.
    fn median(&self, name: &str) -> Option<f64> {
        if self.is_wrong() {
            return None;
        }
        median(self.runs.iter().filter_map(|run| run[name].as_f64()).collect())
    }

    /// Whether any run was wrong: then none counts.
    fn is_wrong(&self) -> bool {
        self.runs.iter().any(|run| is_wrong(run))
    }
}

/// Whether a system wrote something else than it should have.
pub fn is_wrong(result: &Value) -> bool {
    result["right"] == false || result["missing"].as_i64().is_some_and(|missing| missing != 0)
}

/// The value in the middle; of an even number the mean of the two.
fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let (low, high) = (values.get(values.len().checked_sub(1)? / 2)?, values.get(values.len() / 2)?);
    Some((low + high) / 2.0)
}

/// In the order in which they first ran.
fn lines(results: &[Value]) -> Vec<Line<'_>> {
    let mut lines: Vec<Line<'_>> = Vec::new();
    for run in results {
        let (Some(workload), Some(system)) = (run["workload"].as_str(), run["system"].as_str()) else {
            continue;
        };
        match lines.iter_mut().find(|line| line.workload == workload && line.system == system) {
            Some(line) => line.runs.push(run),
            None => lines.push(Line { workload, system, runs: vec![run] }),
        }
    }
    lines.sort_by_key(|line| results.iter().position(|run| run["workload"] == line.workload));
    lines
}

/// The figures of the table: heading, name in the results, digits behind the point.
const COLUMNS: [(&str, &str, usize); 7] = [
    ("CPU-s/M, steady", "steady_cpu_s_per_million", 2),
    ("CPU-s/M, whole", "cpu_s_per_million", 2),
    ("broker CPU-s/M", "steady_broker_cpu_s_per_million", 2),
    ("records/s", "records_per_s", 0),
    ("peak MiB", "rss_max_mib", 0),
    ("changelog MB/M", "changelog_mb_per_million", 2),
    ("state MB", "state_mb", 0),
];

/// How many records a second a system took at most on a workload, its start and end left out.
pub fn most_records_per_s(results: &[Value], system: &str, workload: &str) -> Option<f64> {
    let of = |run: &&Value| run["system"] == system && run["workload"] == workload;
    let rates = results.iter().filter(of).filter_map(|run| run["steady_records_per_s"].as_f64());
    rates.reduce(f64::max)
}

const LATENCY: [&str; 12] = [
    "latency_of",
    "rate",
    "commit_ms",
    "p50_ms",
    "p99_ms",
    "p999_ms",
    "max_ms",
    "results",
    "missing",
    "generator_lag_max_ms",
    "stolen_share",
    "cores",
];
const RECOVERY: [&str; 5] = ["recovery_of", "disk", "records", "state_mb", "next_commit_s"];

/// All tables.
pub fn report(results: &[Value]) -> String {
    let mut text = String::new();
    for (heading, table) in [
        ("Throughput", table(results)),
        ("Latency", plain(results, &LATENCY)),
        ("Recovery", plain(results, &RECOVERY)),
    ] {
        if !table.is_empty() {
            write!(text, "### {heading}\n\n{table}\n").expect("a String takes all");
        }
    }
    text
}

/// A Markdown table of these fields of the results that have the first one, as they are.
fn plain(results: &[Value], names: &[&str]) -> String {
    let rows: Vec<&Value> = results.iter().filter(|row| !row[names[0]].is_null()).collect();
    if rows.is_empty() {
        return String::new();
    }
    let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
    let mut text = line(names.iter().map(|name| name.replace('_', " ")).collect());
    text += &line(names.iter().map(|_| "---".to_owned()).collect());
    for row in rows {
        let cell = |name: &&str| match &row[*name] {
            Value::String(text) => text.clone(),
            Value::Number(number) if number.is_f64() => format!("{:.2}", number.as_f64().unwrap_or(0.0)),
            Value::Null => "–".to_owned(),
            other => other.to_string(),
        };
        text += &line(names.iter().map(cell).collect());
    }
    text
}

/// A Markdown table: medians over the rounds, and how many times Thalweg's steady CPU each system takes.
fn table(results: &[Value]) -> String {
    let lines = lines(results);
    if lines.is_empty() {
        return String::new();
    }
    let mut text = String::from("| workload | system | times Thalweg |");
    COLUMNS.iter().for_each(|(heading, ..)| write!(text, " {heading} |").expect("a String takes all"));
    text += " runs | result |\n| --- | --- | ---: |";
    text += &" ---: |".repeat(COLUMNS.len() + 1);
    text += " --- |\n";
    for line in &lines {
        let steady = "steady_cpu_s_per_million";
        let ours = lines.iter().find(|other| other.workload == line.workload && other.system == "thalweg");
        let times = line.median(steady).zip(ours.and_then(|ours| ours.median(steady))).map(|(a, b)| a / b);
        let times = times.map_or("–".to_owned(), |times| format!("{times:.2}"));
        write!(text, "| {} | {} | {times} |", line.workload, line.system).expect("a String takes all");
        for (_, name, digits) in COLUMNS {
            let value = line.median(name).map_or("–".to_owned(), |value| format!("{value:.digits$}"));
            write!(text, " {value} |").expect("a String takes all");
        }
        let result = match (line.is_wrong(), line.runs.iter().any(|run| run["right"] == true)) {
            (true, _) => "**WRONG**",
            (false, true) => "exact",
            (false, false) => "none",
        };
        writeln!(text, " {} | {result} |", line.runs.len()).expect("a String takes all");
    }
    text
}

const BAR_PX: usize = 22;
const LABEL_PX: usize = 190;
const WIDTH_PX: usize = 720;

/// A chart of one workload, as SVG: a bar per system, its length the steady CPU per million records.
pub fn chart(results: &[Value], workload: &str) -> String {
    let bars: Vec<(&str, f64)> = lines(results)
        .iter()
        .filter(|line| line.workload == workload && !line.is_wrong())
        .filter_map(|line| Some((line.system, line.median("steady_cpu_s_per_million")?)))
        .collect();
    let most = bars.iter().map(|(_, value)| *value).fold(f64::MIN_POSITIVE, f64::max);
    let height = (bars.len() + 2) * BAR_PX;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH_PX}\" height=\"{height}\" \
         font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"8\" y=\"18\" font-weight=\"bold\">{workload}: CPU seconds per million records</text>\n"
    );
    for (place, (system, value)) in bars.iter().enumerate() {
        let y = (place + 1) * BAR_PX + 6;
        let length = (value / most * (WIDTH_PX - LABEL_PX - 70) as f64).max(1.0);
        let fill = if *system == "thalweg" { "#0b6e8f" } else { "#b0b7bd" };
        let (text_y, value_x) = (y + 14, LABEL_PX as f64 + length + 6.0);
        writeln!(
            svg,
            "<text x=\"8\" y=\"{text_y}\">{system}</text>\
             <rect x=\"{LABEL_PX}\" y=\"{y}\" width=\"{length:.1}\" height=\"{}\" fill=\"{fill}\"/>\
             <text x=\"{value_x:.1}\" y=\"{text_y}\">{value:.2}</text>",
            BAR_PX - 4
        )
        .expect("a String takes all");
    }
    svg + "</svg>\n"
}

/// The names of all workloads with figures.
pub fn workloads(results: &[Value]) -> Vec<&str> {
    let mut names: Vec<&str> = lines(results).iter().map(|line| line.workload).collect();
    names.dedup();
    names
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median(vec![]), None);
    }

    #[test]
    fn a_wrong_run_has_no_figures() {
        let run = |system, cpu: f64, right| json!({ "workload": "w", "system": system, "steady_cpu_s_per_million": cpu, "right": right });
        let results = [run("thalweg", 1.5, true), run("other", 7.25, true), run("other", 7.25, false)];
        let table = table(&results);
        assert!(
            table.contains("| w | thalweg | 1.00 | 1.50 |") && table.contains("| 1 | exact |"),
            "{table}"
        );
        assert!(table.contains("| w | other | – | – |") && table.contains("| 2 | **WRONG** |"), "{table}");
        assert!(is_wrong(&results[2]) && is_wrong(&json!({ "missing": 1 })) && !is_wrong(&results[1]));
        assert!(!chart(&results, "w").contains("7.25"));
    }
}
