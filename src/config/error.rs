//! What an error says: one line with file, line, column, what is wrong and what is right.

use std::fmt;

use serde_saphyr::Location;

use super::tree::Spanned;

/// A place in a file, both counted from 1; columns are characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Line.
    pub line: u32,
    /// Column.
    pub column: u32,
}

impl Place {
    /// Where the next character goes after `text`.
    pub(super) fn after(text: &str) -> Place {
        let last = text.rsplit('\n').next().unwrap_or_default();
        let line = text.bytes().filter(|&byte| byte == b'\n').count() + 1;
        Place { line: saturate(line as u64), column: saturate(last.chars().count() as u64 + 1) }
    }
}

impl From<Location> for Place {
    fn from(at: Location) -> Place {
        // A location that the parser does not know is 0:0; the start of the file is as near as anything.
        Place { line: saturate(at.line()).max(1), column: saturate(at.column()).max(1) }
    }
}

fn saturate(count: u64) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// Why a configuration is refused: the first thing found wrong, as one line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError {
    /// The file, as the caller named it.
    pub file: String,
    /// Where in the file; `None` when it is about the file as a whole.
    pub place: Option<Place>,
    /// What is wrong; then what to do, with an example of what is right.
    pub message: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if let Some(Place { line, column }) = self.place {
            write!(f, ":{line}:{column}")?;
        }
        write!(f, ": {}", self.message)
    }
}

/// A [`ConfigError`] before it knows its file.
#[derive(Debug)]
pub(super) struct Fault {
    pub place: Option<Place>,
    pub message: String,
    /// Whether it is in the table of children that a site has.
    pub of_site: bool,
}

impl Fault {
    /// Something wrong at the place of `value`.
    pub fn at<T>(value: &Spanned<T>, message: impl Into<String>) -> Fault {
        Fault::somewhere(value.place, message)
    }

    pub fn somewhere(place: Place, message: impl Into<String>) -> Fault {
        Fault { place: Some(place), message: message.into(), of_site: false }
    }

    /// Something wrong with the file as a whole.
    pub fn whole(message: impl Into<String>) -> Fault {
        Fault { place: None, message: message.into(), of_site: false }
    }

    pub fn in_file(self, file: &str) -> ConfigError {
        ConfigError { file: one_line(file), place: self.place, message: self.message }
    }
}

/// `text` without anything that would break the line.
pub(super) fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// What the operator wrote, quoted, without anything that would break a line or flood it.
pub(super) fn quote(text: &str) -> String {
    const LENGTH_MAX: usize = 60;
    if text.chars().count() <= LENGTH_MAX {
        return format!("\"{}\"", text.escape_debug().to_string().replace("\\'", "'"));
    }
    let head: String = text.chars().take(LENGTH_MAX).collect();
    format!("\"{}...\"", head.escape_debug())
}

/// The word that `typed` was probably meant to be, if any is near.
pub(super) fn nearest<'a>(typed: &str, words: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // Longer than any word there is, and the distance takes quadratic time.
    if typed.len() > 64 {
        return None;
    }
    let near = words.into_iter().map(|word| (distance(typed, word), word));
    near.filter(|&(distance, word)| distance <= 1 + word.len() / 5).min().map(|(_, word)| word)
}

/// Edits between two words: a letter put in, left out or replaced, or two neighbours swapped.
fn distance(from: &str, to: &str) -> usize {
    let (from, to): (Vec<char>, Vec<char>) = (from.chars().collect(), to.chars().collect());
    let mut rows = vec![vec![0; to.len() + 1]; from.len() + 1];
    for i in 0..=from.len() {
        for j in 0..=to.len() {
            rows[i][j] = if i == 0 || j == 0 {
                i + j
            } else {
                let replaced = rows[i - 1][j - 1] + usize::from(from[i - 1] != to[j - 1]);
                let best = replaced.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
                let swapped = i > 1 && j > 1 && from[i - 1] == to[j - 2] && from[i - 2] == to[j - 1];
                if swapped { best.min(rows[i - 2][j - 2] + 1) } else { best }
            };
        }
    }
    rows[from.len()][to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_counts_single_edits() {
        let table = [("", "", 0), ("abc", "abc", 0), ("wieght", "weight", 1), ("wight", "weight", 1), ("", "tier", 4)];
        for (from, to, edits) in table {
            assert_eq!(distance(from, to), edits, "{from} -> {to}");
        }
    }

    #[test]
    fn only_a_near_word_is_suggested() {
        let words = ["name", "address", "weight"];
        assert_eq!(nearest("adress", words), Some("address"));
        assert_eq!(nearest("nmae", words), Some("name"));
        assert_eq!(nearest("colour", words), None);
    }

    #[test]
    fn quotes_keep_the_line_whole() {
        assert_eq!(quote("a\nb"), r#""a\nb""#);
        assert_eq!(quote("it's"), r#""it's""#);
        assert!(quote(&"x".repeat(1000)).len() < 70);
    }
}
