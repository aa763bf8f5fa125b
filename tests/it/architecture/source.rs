//! The paths, macros and keywords in a Rust file, found without a compiler: comments and literals
//! are skipped, `use` trees are spread out.

/// What the rules ask of a file.
#[derive(Debug, Default)]
pub struct Source {
    /// Every path of two or more names, from the crate's root where it began with `crate`, `self`
    /// or `super`.
    pub paths: Vec<String>,
    /// Names of the macros that are called.
    pub macros: Vec<String>,
    /// It says `async` or `.await`.
    pub is_async: bool,
}

impl Source {
    /// Reads the text of the file that is the module `module` (empty: the crate's root).
    pub fn new(module: &str, text: &str) -> Source {
        let tokens = tokens(text);
        let mut source = Source::default();
        // The modules that we are in, each with the number of braces open around it.
        let mut inside: Vec<String> = module
            .split("::")
            .filter(|part| !part.is_empty())
            .map(str::to_owned)
            .collect();
        let n_file = inside.len();
        let mut opened: Vec<usize> = Vec::new();
        let mut depth = 0;
        let mut at = 0;
        while let Some(token) = tokens.get(at) {
            let next = tokens.get(at + 1).map_or("", String::as_str);
            match token.as_str() {
                "{" => depth += 1,
                "}" => {
                    depth -= 1;
                    if opened.last() == Some(&depth) {
                        opened.pop();
                        inside.pop();
                    }
                }
                "mod" if tokens.get(at + 2).is_some_and(|token| token == "{") => {
                    inside.push(next.to_owned());
                    opened.push(depth);
                }
                "use" => {
                    let mut found = Vec::new();
                    at = use_tree(&tokens, at + 1, &[], &mut found);
                    source
                        .paths
                        .extend(found.iter().map(|path| rooted(path, &inside)));
                    continue;
                }
                "async" | "await" => source.is_async = true,
                _ if is_name(token) && next == "!" => source.macros.push(token.clone()),
                _ if is_name(token) && next == "::" => {
                    let mut path = vec![token.clone()];
                    while tokens.get(at + 1).is_some_and(|token| token == "::")
                        && tokens.get(at + 2).is_some_and(|token| is_name(token))
                    {
                        at += 2;
                        path.push(tokens[at].clone());
                    }
                    source.paths.push(rooted(&path, &inside));
                }
                _ => {}
            }
            at += 1;
        }
        debug_assert!(inside.len() >= n_file);
        source
    }
}

/// Collects the paths of one `use` tree that begins at `at` behind `prefix`; returns where it ends.
fn use_tree(
    tokens: &[String],
    mut at: usize,
    prefix: &[String],
    found: &mut Vec<Vec<String>>,
) -> usize {
    let mut path = prefix.to_vec();
    while let Some(token) = tokens.get(at) {
        match token.as_str() {
            "{" => {
                at += 1;
                while tokens.get(at).is_some_and(|token| token != "}") {
                    at = use_tree(tokens, at, &path, found);
                    if tokens.get(at).is_some_and(|token| token == ",") {
                        at += 1;
                    }
                }
                return at + 1;
            }
            // The other name of `as` is no part of the path.
            "as" => at += 1,
            "," | ";" | "}" => break,
            name if is_name(name) => path.push(name.to_owned()),
            _ => {}
        }
        at += 1;
    }
    found.push(path);
    at
}

/// Joins a path, with `crate`, `self` and `super` replaced by where they lead from the module
/// `inside`.
fn rooted(path: &[String], inside: &[String]) -> String {
    let mut base: Option<Vec<String>> = None;
    let mut rest = path;
    while let Some((first, others)) = rest.split_first() {
        base = match (first.as_str(), base) {
            ("crate", None) => Some(Vec::new()),
            ("self", None) => Some(inside.to_vec()),
            ("super", base) => {
                let mut base = base.unwrap_or_else(|| inside.to_vec());
                base.pop();
                Some(base)
            }
            (_, base) => {
                let base = base.map(|base| [vec!["crate".to_owned()], base].concat());
                return [base.unwrap_or_default(), rest.to_vec()]
                    .concat()
                    .join("::");
            }
        };
        rest = others;
    }
    [vec!["crate".to_owned()], base.unwrap_or_default()]
        .concat()
        .join("::")
}

fn is_name(token: &str) -> bool {
    token.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// Splits a file into names, `::` and single characters, without comments and literals.
fn tokens(text: &str) -> Vec<String> {
    let chars: Vec<char> = text.chars().collect();
    let mut tokens = Vec::new();
    let mut at = 0;
    while at < chars.len() {
        let c = chars[at];
        let next = chars.get(at + 1).copied().unwrap_or(' ');
        if c.is_whitespace() {
            at += 1;
        } else if c == '/' && (next == '/' || next == '*') {
            at = after_comment(&chars, at);
        } else if c == '"' {
            at = after_quoted(&chars, at);
        } else if c == '\'' {
            at = after_quote(&chars, at);
        } else if let Some(end) = after_raw(&chars, at) {
            at = end;
        } else if c.is_alphanumeric() || c == '_' {
            let start = at;
            while chars
                .get(at)
                .is_some_and(|c| c.is_alphanumeric() || *c == '_')
            {
                at += 1;
            }
            tokens.push(chars[start..at].iter().collect());
        } else if c == ':' && next == ':' {
            tokens.push("::".to_owned());
            at += 2;
        } else {
            tokens.push(c.to_string());
            at += 1;
        }
    }
    tokens
}

/// Skips `// …` or `/* … */`, nested ones included.
fn after_comment(chars: &[char], start: usize) -> usize {
    if chars[start + 1] == '/' {
        return chars[start..]
            .iter()
            .position(|&c| c == '\n')
            .map_or(chars.len(), |n| start + n);
    }
    let mut depth = 0;
    let mut at = start;
    while at < chars.len() {
        match chars.get(at..at + 2) {
            Some(['/', '*']) => depth += 1,
            Some(['*', '/']) => depth -= 1,
            _ => {
                at += 1;
                continue;
            }
        }
        at += 2;
        if depth == 0 {
            break;
        }
    }
    at
}

/// Skips `"…"`.
fn after_quoted(chars: &[char], start: usize) -> usize {
    let mut at = start + 1;
    while at < chars.len() && chars[at] != '"' {
        at += if chars[at] == '\\' { 2 } else { 1 };
    }
    at + 1
}

/// Skips a character literal, or the tick of a lifetime.
fn after_quote(chars: &[char], start: usize) -> usize {
    match chars.get(start + 1..start + 3) {
        Some(['\\', _]) => chars[start + 3..]
            .iter()
            .position(|&c| c == '\'')
            .map_or(chars.len(), |n| start + n + 4),
        Some([_, '\'']) => start + 3,
        _ => start + 1,
    }
}

/// Skips `r"…"`, `r#"…"#`, `br"…"` and so on, if there is one here.
fn after_raw(chars: &[char], start: usize) -> Option<usize> {
    // The r of a name such as `for"` is none; names are read as a whole, so here a name begins.
    let mut at = start;
    if chars[at] == 'b' || chars[at] == 'c' {
        at += 1;
    }
    if chars.get(at) != Some(&'r') {
        return None;
    }
    at += 1;
    let hashes = chars[at..].iter().take_while(|&&c| c == '#').count();
    at += hashes;
    if chars.get(at) != Some(&'"') {
        return None;
    }
    let end: Vec<char> = std::iter::once('"')
        .chain(std::iter::repeat_n('#', hashes))
        .collect();
    let body = at + 1;
    let n = chars[body..]
        .windows(end.len())
        .position(|window| window == end)?;
    Some(body + n + end.len())
}
