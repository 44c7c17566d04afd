//! A YAML text as a tree of words, lists and maps, each with its place, and how typed values are taken out of it.
//!
//! ```text
//!   text ──serde-saphyr──► Node ──Read──► structs of `raw`
//! ```
//!
//! serde would fill the structs from the text at once, but serde-saphyr's code would be compiled anew for every struct, several
//! times over where places are wanted: that was two fifths of the time that the optimised library took to compile. So it fills
//! one type here.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{Error, Options};

use super::error::Place;

/// Something, and where the file has it; at an alias, where the alias is.
#[derive(Clone, Debug)]
pub(super) struct Spanned<T> {
    pub value: T,
    pub place: Place,
}

impl<T> Spanned<T> {
    /// Something else at the same place.
    pub fn with<U>(&self, value: U) -> Spanned<U> {
        Spanned { value, place: self.place }
    }
}

pub(super) type Node = Spanned<Value>;

#[derive(Debug)]
pub(super) enum Value {
    /// No value, or a word that stands for none.
    Nothing,
    /// What only reads as a word: text in quotes, or no number.
    Word(String),
    /// What YAML takes for a number or a truth: as it was written, and what it is taken for.
    Other {
        written: String,
        meaning: String,
    },
    List(Vec<Node>),
    Map(Vec<(Spanned<String>, Node)>),
}

/// Reads a whole text.
pub(super) fn parse(text: &str, options: Options) -> Result<Node, Error> {
    serde_saphyr::from_str_with_options(text, options).map(|found| node(found, text))
}

/// What serde-saphyr finds, before numbers are written again as they were.
enum Found {
    Nothing,
    Word(String),
    Other(String),
    List(Vec<serde_saphyr::Spanned<Found>>),
    Map(Vec<(serde_saphyr::Spanned<String>, serde_saphyr::Spanned<Found>)>),
}

fn node(found: serde_saphyr::Spanned<Found>, text: &str) -> Node {
    let value = match found.value {
        Found::Nothing => Value::Nothing,
        Found::Word(word) => Value::Word(word),
        Found::Other(meaning) => {
            let span = found.defined.span();
            let start = span.byte_offset().and_then(|at| usize::try_from(at).ok());
            let length = span.byte_len().and_then(|length| usize::try_from(length).ok());
            let written = start.zip(length).and_then(|(start, length)| text.get(start..start.checked_add(length)?));
            Value::Other { written: written.unwrap_or(&meaning).to_owned(), meaning }
        }
        Found::List(items) => Value::List(items.into_iter().map(|item| node(item, text)).collect()),
        Found::Map(entries) => {
            let entry = |(key, value): (serde_saphyr::Spanned<String>, _)| {
                (Spanned { place: key.referenced.into(), value: key.value }, node(value, text))
            };
            Value::Map(entries.into_iter().map(entry).collect())
        }
    };
    Spanned { value, place: found.referenced.into() }
}

impl<'de> Deserialize<'de> for Found {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Found, D::Error> {
        struct Anything;

        impl<'de> Visitor<'de> for Anything {
            type Value = Found;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value, a list or a map")
            }

            fn visit_unit<E>(self) -> Result<Found, E> {
                Ok(Found::Nothing)
            }

            fn visit_str<E>(self, word: &str) -> Result<Found, E> {
                Ok(Found::Word(word.to_owned()))
            }

            fn visit_bool<E>(self, value: bool) -> Result<Found, E> {
                Ok(Found::Other(value.to_string()))
            }

            fn visit_i64<E>(self, value: i64) -> Result<Found, E> {
                Ok(Found::Other(value.to_string()))
            }

            fn visit_u64<E>(self, value: u64) -> Result<Found, E> {
                Ok(Found::Other(value.to_string()))
            }

            fn visit_f64<E>(self, value: f64) -> Result<Found, E> {
                Ok(Found::Other(value.to_string()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Found, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = list.next_element()? {
                    items.push(item);
                }
                Ok(Found::List(items))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Found, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Found::Map(entries))
            }
        }

        deserializer.deserialize_any(Anything)
    }
}

/// Why a part of the tree is not what belongs there.
#[derive(Debug)]
pub(super) struct Misfit {
    pub place: Place,
    pub what: What,
}

#[derive(Debug)]
pub(super) enum What {
    UnknownKey {
        key: String,
        known: &'static [&'static str],
    },
    MissingKey(&'static str),
    /// There is no value where one belongs.
    NoValue,
    NotSingle,
    NotList,
    NotMap,
    /// What it is taken for.
    NotWord(String),
    /// What it is.
    NeitherWordNorMap(&'static str),
}

impl Node {
    pub fn misfit(&self, what: What) -> Misfit {
        Misfit { place: self.place, what }
    }
}

/// What can be taken out of a tree.
pub(super) trait Read: Sized {
    fn read(node: Node) -> Result<Self, Misfit>;

    /// What a map without its key has; `None` where the key must be there.
    fn left_out() -> Option<Self> {
        None
    }
}

/// A single value as it was written.
impl Read for String {
    fn read(node: Node) -> Result<String, Misfit> {
        match node.value {
            Value::Word(text) | Value::Other { written: text, .. } => Ok(text),
            Value::Nothing => Err(node.misfit(What::NoValue)),
            Value::List(_) | Value::Map(_) => Err(node.misfit(What::NotSingle)),
        }
    }
}

impl<T: Read> Read for Spanned<T> {
    fn read(node: Node) -> Result<Spanned<T>, Misfit> {
        let place = node.place;
        T::read(node).map(|value| Spanned { value, place })
    }
}

impl<T: Read> Read for Option<T> {
    fn read(node: Node) -> Result<Option<T>, Misfit> {
        if matches!(node.value, Value::Nothing) { Ok(None) } else { T::read(node).map(Some) }
    }

    fn left_out() -> Option<Option<T>> {
        Some(None)
    }
}

/// A list that may be left out; one that must be there is `Spanned`.
impl<T: Read> Read for Vec<T> {
    fn read(node: Node) -> Result<Vec<T>, Misfit> {
        match node.value {
            Value::List(items) => items.into_iter().map(T::read).collect(),
            Value::Nothing => Ok(Vec::new()),
            _ => Err(node.misfit(What::NotList)),
        }
    }

    fn left_out() -> Option<Vec<T>> {
        Some(Vec::new())
    }
}

/// A map whose keys are taken out one by one.
pub(super) struct Keys {
    /// Of the last one: the next would be added behind it.
    last: Place,
    entries: Vec<(Spanned<String>, Node)>,
}

impl Keys {
    /// Those of a map that has none but `known` ones.
    pub fn of(node: Node, known: &'static [&'static str]) -> Result<Keys, Misfit> {
        let place = node.place;
        let entries = match node.value {
            Value::Map(entries) => entries,
            Value::Nothing => Vec::new(),
            _ => return Err(node.misfit(What::NotMap)),
        };
        match entries.iter().find(|(key, _)| !known.contains(&key.value.as_str())) {
            Some((Spanned { value, place }, _)) => {
                Err(Misfit { place: *place, what: What::UnknownKey { key: value.clone(), known } })
            }
            None => Ok(Keys { last: entries.last().map_or(place, |(key, _)| key.place), entries }),
        }
    }

    /// The value of a key.
    pub fn take<T: Read>(&mut self, key: &'static str) -> Result<T, Misfit> {
        match self.entries.iter().position(|(name, _)| name.value == key) {
            Some(at) => T::read(self.entries.swap_remove(at).1),
            None => T::left_out().ok_or(Misfit { place: self.last, what: What::MissingKey(key) }),
        }
    }
}

/// Declares structs whose keys are all there is; a key that is no name in Rust stands behind the field.
macro_rules! raw {
    ($($name:ident { $($field:ident $(as $key:literal)?: $type:ty,)* })*) => {$(
        pub(super) struct $name { $(pub $field: $type,)* }

        impl $crate::config::tree::Read for $name {
            #[allow(unused_mut, unused_variables, reason = "a map may have no keys")]
            fn read(node: $crate::config::tree::Node) -> Result<$name, $crate::config::tree::Misfit> {
                let mut keys = $crate::config::tree::Keys::of(node, &[$(raw!(@key $field $($key)?)),*])?;
                Ok($name { $($field: keys.take(raw!(@key $field $($key)?))?,)* })
            }
        }
    )*};
    (@key $field:ident) => { stringify!($field) };
    (@key $field:ident $key:literal) => { $key };
}
pub(super) use raw;
