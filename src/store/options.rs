//! The settings in a description's `options`, which a server takes in its startup packet and a
//! pooler does not.

/// Reads `-c name=value`, `-cname=value` and `--name=value`, separated by spaces; a backslash takes
/// the next character as it is. What else a server may be told there, a client has no use for.
pub(super) fn settings(options: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut words = words(options).into_iter();
    while let Some(word) = words.next() {
        let setting = if word == "-c" {
            words.next()
        } else {
            let rest = word.strip_prefix("-c").or_else(|| word.strip_prefix("--"));
            rest.map(str::to_owned)
        };
        if let Some((name, value)) = setting.as_deref().and_then(|it| it.split_once('=')) {
            found.push((name.replace('-', "_"), value.to_owned()));
        }
    }
    found
}

/// A text as SQL has it, whatever `standard_conforming_strings` says.
pub(super) fn literal(text: &str) -> String {
    format!("E'{}'", text.replace('\\', r"\\").replace('\'', "''"))
}

fn words(text: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut chars = text.chars();
    while let Some(char) = chars.next() {
        let last = words.last_mut().expect("there is always a last word");
        match char {
            '\\' => last.extend(chars.next()),
            _ if char.is_ascii_whitespace() => words.push(String::new()),
            _ => last.push(char),
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(options: &str, expected: &[(&str, &str)]) {
        let expected: Vec<(String, String)> = expected
            .iter()
            .map(|&(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        assert_eq!(settings(options), expected, "{options}");
    }

    #[test]
    fn a_literal_holds_every_text() {
        assert_eq!(literal(r"it's a \"), r"E'it''s a \\'");
    }

    #[test]
    fn every_form_of_a_setting_is_read() {
        check("-c search_path=shop", &[("search_path", "shop")]);
        check(
            "-csearch_path=shop,public  --work-mem=4MB",
            &[("search_path", "shop,public"), ("work_mem", "4MB")],
        );
        check(
            r"-c search_path=my\ shop\\",
            &[("search_path", r"my shop\")],
        );
        check("-e -c -d 5 -c", &[]);
        check("", &[]);
    }
}
