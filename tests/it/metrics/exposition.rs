//! A strict reader of Prometheus' text form (version 0.0.4), stricter than the format where its
//! conventions are: the first violation is an error.

use std::collections::{BTreeMap, BTreeSet};

/// A label set, sorted by name.
pub type Labels = BTreeMap<String, String>;

/// What a text holds.
#[derive(Debug, Default, PartialEq)]
pub struct Exposition {
    pub families: BTreeMap<String, Family>,
}

/// One metric.
#[derive(Debug, PartialEq)]
pub struct Family {
    pub kind: String,
    pub help: String,
    /// Name (with a histogram's suffix), labels, value.
    pub samples: Vec<(String, Labels, f64)>,
}

impl Exposition {
    /// Reads a text; the error says what is wrong, and in which line.
    pub fn parse(text: &str) -> Result<Exposition, String> {
        let mut exposition = Exposition::default();
        let mut current: Option<(String, Family)> = None;
        let mut help: Option<(String, String)> = None;
        for line in text.split_inclusive('\n') {
            let at = |problem: &str| format!("{problem}: {line:?}");
            let body = line
                .strip_suffix('\n')
                .ok_or_else(|| at("the last line has no end"))?;
            if let Some(rest) = body.strip_prefix("# HELP ") {
                let (name, text) = rest.split_once(' ').ok_or_else(|| at("no help text"))?;
                exposition
                    .close(current.take())
                    .map_err(|problem| at(&problem))?;
                if help.is_some() || text.trim().is_empty() {
                    return Err(at("HELP without its TYPE, or empty"));
                }
                help = Some((name.to_owned(), text.to_owned()));
            } else if let Some(rest) = body.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').ok_or_else(|| at("no kind"))?;
                let (helped, help) = help
                    .take()
                    .ok_or_else(|| at("TYPE without HELP before it"))?;
                if helped != name {
                    return Err(at("HELP and TYPE name different metrics"));
                }
                check_name(name, kind).map_err(|problem| at(&problem))?;
                current = Some((
                    name.to_owned(),
                    Family {
                        kind: kind.to_owned(),
                        help,
                        samples: Vec::new(),
                    },
                ));
            } else if body.starts_with('#') || body.is_empty() {
                return Err(at("neither HELP nor TYPE nor a sample"));
            } else {
                let (name, family) = current
                    .as_mut()
                    .ok_or_else(|| at("a sample without TYPE"))?;
                let sample = parse_sample(body).map_err(|problem| at(&problem))?;
                check_sample(name, family, &sample).map_err(|problem| at(&problem))?;
                family.samples.push(sample);
            }
        }
        if let Some((name, _)) = help {
            return Err(format!("HELP without TYPE: {name}"));
        }
        exposition.close(current)?;
        Ok(exposition)
    }

    fn close(&mut self, family: Option<(String, Family)>) -> Result<(), String> {
        let Some((name, family)) = family else {
            return Ok(());
        };
        if family.samples.is_empty() {
            return Err(format!("{name} has no sample"));
        }
        if family.kind == "histogram" {
            check_histogram(&name, &family)?;
        }
        if self.families.insert(name.clone(), family).is_some() {
            return Err(format!("{name} comes twice"));
        }
        Ok(())
    }

    /// The sum over all samples of this name that have these labels.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.samples()
            .filter(|(known, has, _)| {
                known == name
                    && labels
                        .iter()
                        .all(|(label, value)| has.get(*label).is_some_and(|has| has == value))
            })
            .map(|(_, _, value)| value)
            .sum()
    }

    /// The same of what counts things.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "counts are whole and far below 2^53"
    )]
    pub fn count(&self, name: &str, labels: &[(&str, &str)]) -> i64 {
        self.sum(name, labels).round() as i64
    }

    /// All values that may only grow: counters, and the buckets and counts of histograms.
    pub fn growing(&self) -> BTreeMap<(String, Labels), f64> {
        self.families
            .values()
            .filter(|family| family.kind != "gauge")
            .flat_map(|family| &family.samples)
            .map(|(name, labels, value)| ((name.clone(), labels.clone()), *value))
            .collect()
    }

    /// Every sample.
    pub fn samples(&self) -> impl Iterator<Item = &(String, Labels, f64)> {
        self.families.values().flat_map(|family| &family.samples)
    }
}

fn is_word(text: &str, others: &str) -> bool {
    let is_fit = |c: char| c.is_ascii_alphanumeric() || c == '_' || others.contains(c);
    !text.is_empty() && text.chars().all(is_fit) && !text.starts_with(|c: char| c.is_ascii_digit())
}

/// Names end in their unit, base units only, and counters alone in `_total`.
fn check_name(name: &str, kind: &str) -> Result<(), String> {
    if !is_word(name, ":") {
        return Err("not a metric name".to_owned());
    }
    if !["counter", "gauge", "histogram"].contains(&kind) {
        return Err("an unknown kind".to_owned());
    }
    if name.ends_with("_total") != (kind == "counter") {
        return Err("`_total` is for counters, and all of them".to_owned());
    }
    if ["_count", "_sum", "_bucket"]
        .iter()
        .any(|suffix| name.ends_with(suffix))
    {
        return Err("a histogram's suffix".to_owned());
    }
    let words: Vec<&str> = name.trim_end_matches("_total").split('_').collect();
    let scaled = [
        "ms",
        "milliseconds",
        "micros",
        "microseconds",
        "minutes",
        "hours",
        "days",
        "kb",
        "mb",
        "kilobytes",
        "megabytes",
        "percent",
    ];
    if words.iter().any(|word| scaled.contains(word)) {
        return Err("not a base unit".to_owned());
    }
    let unit = words
        .iter()
        .position(|word| ["seconds", "bytes"].contains(word));
    if unit.is_some_and(|at| at + 1 != words.len()) {
        return Err("the unit does not stand at the end".to_owned());
    }
    Ok(())
}

fn parse_sample(line: &str) -> Result<(String, Labels, f64), String> {
    let end = line.find(['{', ' ']).ok_or_else(|| "no value".to_owned())?;
    let (name, rest) = line.split_at(end);
    let mut labels = Labels::new();
    let rest = match rest.strip_prefix('{') {
        None => rest,
        Some(mut rest) => loop {
            let (label, value) = rest.split_once("=\"").ok_or("no label value")?;
            if !is_word(label, "") {
                return Err("not a label name".to_owned());
            }
            let (value, after) = unescape(value)?;
            if labels.insert(label.to_owned(), value).is_some() {
                return Err("a label comes twice".to_owned());
            }
            if let Some(after) = after.strip_prefix('}') {
                break after;
            }
            rest = after.strip_prefix(',').ok_or("no comma between labels")?;
        },
    };
    let value = rest.strip_prefix(' ').ok_or("no value")?;
    let value: f64 = value
        .parse()
        .map_err(|_| "no number, or a time behind it")?;
    Ok((name.to_owned(), labels, value))
}

/// Reads a label's value up to its closing quotation mark.
fn unescape(text: &str) -> Result<(String, &str), String> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Ok((value, &text[at + 1..])),
            '\\' => value.push(match chars.next() {
                Some((_, 'n')) => '\n',
                Some((_, escaped @ ('"' | '\\'))) => escaped,
                _ => return Err("an unknown escape".to_owned()),
            }),
            other => value.push(other),
        }
    }
    Err("a label value without end".to_owned())
}

fn check_sample(
    name: &str,
    family: &Family,
    (sample, labels, value): &(String, Labels, f64),
) -> Result<(), String> {
    let suffix = sample
        .strip_prefix(name)
        .ok_or("a sample of another metric")?;
    let is_fit = match family.kind.as_str() {
        "histogram" => match suffix {
            "_bucket" => labels.contains_key("le"),
            "_sum" | "_count" => !labels.contains_key("le"),
            _ => false,
        },
        _ => suffix.is_empty() && !labels.contains_key("le"),
    };
    if !is_fit {
        return Err("a sample of another metric".to_owned());
    }
    if !value.is_finite() || family.kind != "gauge" && *value < 0.0 {
        return Err("not a value that it can have".to_owned());
    }
    let is_known = |(known, has, _): &(String, Labels, f64)| known == sample && has == labels;
    if family.samples.iter().any(is_known) {
        return Err("a series comes twice".to_owned());
    }
    Ok(())
}

/// Buckets grow with their bounds up to +Inf, which is the count.
fn check_histogram(name: &str, family: &Family) -> Result<(), String> {
    let without_bound = |labels: &Labels| {
        let mut labels = labels.clone();
        labels.remove("le");
        labels
    };
    let series: BTreeSet<Labels> = family
        .samples
        .iter()
        .map(|(_, labels, _)| without_bound(labels))
        .collect();
    for labels in series {
        let values = |suffix: &str| -> Vec<(f64, f64)> {
            family
                .samples
                .iter()
                .filter(|(sample, has, _)| {
                    *sample == format!("{name}{suffix}") && without_bound(has) == labels
                })
                .map(|(_, has, value)| {
                    let bound = has.get("le").map_or(0.0, |le| le.parse().unwrap());
                    (bound, *value)
                })
                .collect()
        };
        let (buckets, counts, sums) = (values("_bucket"), values("_count"), values("_sum"));
        let [(_, count)] = counts[..] else {
            return Err(format!("{name} has no count, or several, for {labels:?}"));
        };
        if sums.len() != 1 {
            return Err(format!("{name} has no sum, or several, for {labels:?}"));
        }
        let grows = |pair: &[(f64, f64)]| pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1;
        if !buckets.windows(2).all(grows) {
            return Err(format!("the buckets of {name} do not grow for {labels:?}"));
        }
        if buckets.last() != Some(&(f64::INFINITY, count)) {
            return Err(format!(
                "the last bucket of {name} is not all for {labels:?}"
            ));
        }
    }
    Ok(())
}

const GOOD: &str = "# HELP a_total Text.\n# TYPE a_total counter\na_total{x=\"1\"} 2\n";

const HISTOGRAM: &str = "# HELP h_seconds Text.\n# TYPE h_seconds histogram\nh_seconds_bucket{le=\"1\"} 2\n\
                         h_seconds_bucket{le=\"+Inf\"} 3\nh_seconds_sum 4.5\nh_seconds_count 3\n";

/// A checker that cannot fail proves nothing: each rule finds its violation.
#[test]
fn each_violation_is_found() {
    let check = |text: &str, problem: &str| {
        let error = Exposition::parse(text).unwrap_err();
        assert!(error.contains(problem), "{problem}: {error}");
    };
    let with = |from: &str, to: &str, problem: &str| check(&GOOD.replace(from, to), problem);
    assert!(Exposition::parse(GOOD).is_ok());

    with("2\n", "2", "no end");
    with("# HELP a_total Text.\n", "", "TYPE without HELP");
    with(" Text.", " ", "empty");
    with("# TYPE a_total counter\n", "", "without TYPE");
    with("TYPE a_total", "TYPE b_total", "different metrics");
    with("counter", "untyped", "unknown kind");
    with("counter", "gauge", "for counters");
    with("a_total", "a", "for counters");
    with("a_total", "a-b_total", "not a metric name");
    with("a_total", "a_ms_total", "base unit");
    with("a_total", "a_seconds_b_total", "at the end");
    with("\na_total{", "\nb_total{", "another metric");
    with("\na_total{", "\n\na_total{", "neither");
    with("{x=", "{1x=", "label name");
    with("\"1\"", "\"\\t\"", "unknown escape");
    with("\"1\"}", "\"1} 2", "without end");
    with("{x=\"1\"}", "{x=\"1\",x=\"2\"}", "a label comes twice");
    with("{x=\"1\"}", "{x=\"1\"y=\"2\"}", "no comma");
    with(" 2", " two", "no number");
    with(" 2", " 2 1700000000", "no number");
    with(" 2", " -2", "can have");
    with(" 2", " NaN", "can have");
    with("a_total{x=\"1\"} 2\n", "", "no sample");
    check(
        &format!("{GOOD}a_total{{x=\"1\"}} 3\n"),
        "a series comes twice",
    );
    check(&format!("{GOOD}{GOOD}"), "comes twice");

    let with = |from: &str, to: &str, problem: &str| check(&HISTOGRAM.replace(from, to), problem);
    assert!(Exposition::parse(HISTOGRAM).is_ok());

    with("le=\"1\"} 2", "le=\"1\"} 4", "do not grow");
    with("le=\"+Inf\"} 3", "le=\"+Inf\"} 2", "not all");
    with("h_seconds_bucket{le=\"+Inf\"} 3\n", "", "not all");
    with("h_seconds_sum 4.5\n", "", "no sum");
    with("h_seconds_count 3\n", "", "no count");
    with("h_seconds_count", "h_seconds", "another metric");
}
