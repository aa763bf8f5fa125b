//! "Did you mean": the known word nearest to one that was mistyped.

/// Longest word that is compared: no known word is longer, and the comparison is quadratic.
const WORD_CHARS_MAX: usize = 64;

/// Finds the known word that was probably meant, if one is near enough: one slip in three letters,
/// where the dashes of an option do not count. With more slips the hint would mislead: `dead` is no
/// slip of `demo`, nor `--host` of `--route`. Else it finds the known word that begins with this
/// one, or with a slip of it: `--lease` is the beginning of `--lease-seconds`.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word: Vec<char> = bare(word).to_lowercase().chars().collect();
    if word.len() > WORD_CHARS_MAX {
        return None;
    }
    let known: Vec<&str> = known.into_iter().collect();
    known
        .iter()
        .map(|candidate| (distance(&word, bare(candidate)), *candidate))
        .filter(|(distance, candidate)| *distance <= word.len().max(bare(candidate).len()) / 3)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
        .or_else(|| begun_by(&word, &known))
}

/// Fewest letters that count as the beginning of a word.
const BEGIN_CHARS_MIN: usize = 3;

/// Finds the first known word that begins with `word`, or whose first parts, up to a dash or an
/// underscore, are a slip of it.
fn begun_by<'a>(word: &[char], known: &[&'a str]) -> Option<&'a str> {
    if word.len() < BEGIN_CHARS_MIN {
        return None;
    }
    let begin: String = word.iter().collect();
    let begins = |candidate: &&&str| bare(candidate).to_lowercase().starts_with(&begin);
    let is_slip = |candidate: &&&str| {
        let candidate = bare(candidate);
        let mut ends = candidate.match_indices(['-', '_']).map(|(at, _)| at);
        ends.any(|end| distance(word, &candidate[..end]) <= word.len().min(end) / 4)
    };
    let found = known.iter().find(begins);
    found.or_else(|| known.iter().find(is_slip)).copied()
}

fn bare(word: &str) -> &str {
    word.trim_start_matches('-')
}

/// Finds the known word that is one or two letters off, so that hardly another one can be meant.
/// Case and separators do not count, so `dryRun` is a slip of `dry_run`.
pub fn slip_of<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    const LETTERS_MAX: usize = 2;
    let joined = |word: &str| word.to_lowercase().replace(['-', '_', '.', ' '], "");
    let word: Vec<char> = joined(word).chars().collect();
    if word.len() > WORD_CHARS_MAX {
        return None;
    }
    known.into_iter().find(|candidate| {
        let candidate = joined(candidate);
        let most = LETTERS_MAX.min(candidate.len() / 4);
        word.len().abs_diff(candidate.len()) <= most && distance(&word, &candidate) <= most
    })
}

/// Renders the end of an error that names an unknown word: the nearest known one, or nothing.
pub fn did_you_mean<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    nearest(word, known).map_or_else(String::new, |meant| format!("; did you mean `{meant}`?"))
}

/// Counts the letters to insert, delete, replace or swap with their neighbor (optimal string
/// alignment).
fn distance(word: &[char], candidate: &str) -> usize {
    let candidate: Vec<char> = candidate.to_lowercase().chars().collect();
    let width = candidate.len() + 1;
    let mut before_last = vec![0; width];
    let mut last: Vec<usize> = (0..width).collect();
    for (i, &a) in word.iter().enumerate() {
        let mut row = vec![i + 1; width];
        for (j, &b) in candidate.iter().enumerate() {
            let replaced = last[j] + usize::from(a != b);
            row[j + 1] = replaced.min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && a == candidate[j - 1] && word[i - 1] == b {
                row[j + 1] = row[j + 1].min(before_last[j - 1] + 1);
            }
        }
        before_last = std::mem::replace(&mut last, row);
    }
    last[width - 1]
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: [&str; 3] = ["processes", "port", "password"];

    #[test]
    fn a_slip_finds_its_word() {
        for slip in [
            "proceses",
            "porcesses",
            "Processes",
            "process",
            "processess",
        ] {
            assert_eq!(nearest(slip, KNOWN), Some("processes"), "{slip}");
        }
        assert_eq!(nearest("prot", KNOWN), Some("port"));
    }

    #[test]
    fn a_word_that_is_not_close_finds_nothing() {
        for (word, known) in [
            ("dead", "demo"),
            ("host", "port"),
            ("--host", "--route"),
            ("--url", "--dsn"),
            ("log", "exec"),
            ("ls", "run"),
            ("x", "y"),
        ] {
            assert_eq!(nearest(word, [known]), None, "{word}");
        }
        assert_eq!(nearest("--rotue", ["--route"]), Some("--route"));
        assert_eq!(nearest("lgo", ["log"]), Some("log"));
    }

    #[test]
    fn a_begin_finds_its_word() {
        let known = [
            "--retry-jitter",
            "--retry-backoff-seconds",
            "--lease-seconds",
            "--dsn",
        ];
        for (begin, found) in [
            ("--lease", Some("--lease-seconds")),
            ("--leas", Some("--lease-seconds")),
            ("--laese", Some("--lease-seconds")),
            ("--retry-bakoff", Some("--retry-backoff-seconds")),
            ("--retry", Some("--retry-jitter")),
            ("--le", None),
            ("--host", None),
            ("--url", None),
        ] {
            assert_eq!(nearest(begin, known), found, "{begin}");
        }
    }

    #[test]
    fn a_strange_word_finds_nothing() {
        assert_eq!(nearest("zzz", KNOWN), None);
        assert_eq!(nearest("", KNOWN), None);
        assert_eq!(nearest(&"p".repeat(100_000), KNOWN), None);
    }

    #[test]
    fn case_and_separators_are_no_difference() {
        for (slip, meant) in [
            ("dryRun", Some("dry_run")),
            ("DRYRUN", Some("dry_run")),
            ("dry-rum", Some("dry_run")),
            ("eventIds", Some("event_ids")),
            ("evnt_ids", Some("event_ids")),
            ("All", Some("all")),
            ("reason", None),
            ("al", None),
        ] {
            assert_eq!(
                slip_of(slip, ["dry_run", "event_ids", "all"]),
                meant,
                "{slip}"
            );
        }
    }

    #[test]
    fn the_end_of_the_error_names_the_word() {
        assert_eq!(did_you_mean("prot", KNOWN), "; did you mean `port`?");
        assert_eq!(did_you_mean("zzz", KNOWN), "");
    }
}
