//! What most costs are made of, worked out without CEL's interpreter, which takes a hundred times as long: numbers, comparisons
//! and choices. An expression with anything else in it stays with the interpreter.

use std::cmp::Ordering;

use cel::common::ast::{CallExpr, Expr, IdedExpr, LiteralValue, operators};

use super::FUNCTIONS;

/// Variables that are words, among those that are numbers.
pub(super) const WORDS: [&str; 2] = ["child", "client_region"];

/// The variable that is a list of words.
pub(super) const LABELS: &str = "labels";

/// The values of those.
#[derive(Clone, Copy)]
pub(super) struct Words<'a> {
    /// Of [`WORDS`].
    pub single: [&'a str; 2],
    /// Of [`LABELS`].
    pub labels: &'a [String],
}

/// An expression that gives a number.
#[derive(Clone, Debug)]
pub(super) enum Number {
    Given(f64),
    /// A variable, by its position.
    Variable(usize),
    Negated(Box<Number>),
    Pair(fn(f64, f64) -> f64, Box<[Number; 2]>),
    Of(fn(&[f64]) -> f64, Vec<Number>),
    Choice(Box<Truth>, Box<[Number; 2]>),
}

/// An expression that is true or not.
#[derive(Clone, Debug)]
pub(super) enum Truth {
    Compared(fn(Ordering) -> bool, Box<[Number; 2]>),
    /// The word, by its position, is one of these.
    Is(usize, Vec<String>),
    /// This is one of the labels.
    Labelled(String),
    Not(Box<Truth>),
    And(Box<[Truth; 2]>),
    Or(Box<[Truth; 2]>),
}

impl Number {
    /// The same as `expression`, whose variables have these names; `None` where that has anything else in it.
    pub fn of(expression: &IdedExpr, variables: &[&str]) -> Option<Number> {
        match &expression.expr {
            Expr::Literal(LiteralValue::Double(number)) => Some(Number::Given(**number)),
            Expr::Ident(name) => variables.iter().position(|known| known == name).map(Number::Variable),
            Expr::Call(CallExpr { func_name, target: None, args }) => {
                let pair = |of| Some(Number::Pair(of, Box::new(pair(args, |one| Number::of(one, variables))?)));
                match (func_name.as_str(), args.as_slice()) {
                    (operators::ADD, _) => pair(|a, b| a + b),
                    (operators::SUBSTRACT, _) => pair(|a, b| a - b),
                    (operators::MULTIPLY, _) => pair(|a, b| a * b),
                    (operators::DIVIDE, _) => pair(|a, b| a / b),
                    (operators::NEGATE, [one]) => Some(Number::Negated(Box::new(Number::of(one, variables)?))),
                    (operators::CONDITIONAL, [condition, then, otherwise]) => {
                        let ways = [Number::of(then, variables)?, Number::of(otherwise, variables)?];
                        Some(Number::Choice(Box::new(Truth::of(condition, variables)?), Box::new(ways)))
                    }
                    (name, [list]) => {
                        let (_, function) = FUNCTIONS.iter().find(|(known, _)| *known == name)?;
                        let Expr::List(list) = &list.expr else { return None };
                        let numbers: Option<Vec<Number>> =
                            list.elements.iter().map(|one| Number::of(one, variables)).collect();
                        Some(Number::Of(*function, numbers.filter(|_| list.optional_indices.is_empty())?))
                    }
                    _ => None,
                }
            }
            _ => None,
        }
    }

    /// Its value; `None` where CEL calls that an error.
    pub fn value(&self, variables: &[f64], words: Words<'_>) -> Option<f64> {
        let value = |one: &Number| one.value(variables, words);
        match self {
            Number::Given(number) => Some(*number),
            Number::Variable(position) => variables.get(*position).copied(),
            Number::Negated(one) => Some(-value(one)?),
            Number::Pair(of, pair) => Some(of(value(&pair[0])?, value(&pair[1])?)),
            Number::Of(of, all) => Some(of(&all.iter().map(value).collect::<Option<Vec<f64>>>()?)),
            Number::Choice(truth, ways) => value(&ways[usize::from(!truth.value(variables, words)?)]),
        }
    }

    /// The texts that a word, by its position, is compared with.
    pub fn compared<'a>(&'a self, word: usize, texts: &mut Vec<&'a str>) {
        match self {
            Number::Given(_) | Number::Variable(_) => {}
            Number::Negated(one) => one.compared(word, texts),
            Number::Pair(_, pair) => pair.iter().for_each(|one| one.compared(word, texts)),
            Number::Of(_, all) => all.iter().for_each(|one| one.compared(word, texts)),
            Number::Choice(truth, ways) => {
                truth.compared(word, texts);
                ways.iter().for_each(|one| one.compared(word, texts));
            }
        }
    }
}

impl Truth {
    fn compared<'a>(&'a self, word: usize, texts: &mut Vec<&'a str>) {
        match self {
            Truth::Compared(_, pair) => pair.iter().for_each(|one| one.compared(word, texts)),
            Truth::Is(at, those) if *at == word => texts.extend(those.iter().map(String::as_str)),
            Truth::Is(..) | Truth::Labelled(_) => {}
            Truth::Not(one) => one.compared(word, texts),
            Truth::And(both) | Truth::Or(both) => both.iter().for_each(|one| one.compared(word, texts)),
        }
    }

    fn of(expression: &IdedExpr, variables: &[&str]) -> Option<Truth> {
        let Expr::Call(CallExpr { func_name, target: None, args }) = &expression.expr else { return None };
        let both = || Some(Box::new(pair(args, |one| Truth::of(one, variables))?));
        let compared = |of| Some(Truth::Compared(of, Box::new(pair(args, |one| Number::of(one, variables))?)));
        match func_name.as_str() {
            operators::LOGICAL_AND => Some(Truth::And(both()?)),
            operators::LOGICAL_OR => Some(Truth::Or(both()?)),
            operators::LOGICAL_NOT => match args.as_slice() {
                [one] => Some(Truth::Not(Box::new(Truth::of(one, variables)?))),
                _ => None,
            },
            operators::EQUALS => is_word(args).or_else(|| compared(Ordering::is_eq)),
            operators::NOT_EQUALS => match is_word(args) {
                Some(is) => Some(Truth::Not(Box::new(is))),
                None => compared(Ordering::is_ne),
            },
            operators::IN => is_listed(args).or_else(|| is_labelled(args)),
            operators::LESS => compared(Ordering::is_lt),
            operators::LESS_EQUALS => compared(Ordering::is_le),
            operators::GREATER => compared(Ordering::is_gt),
            operators::GREATER_EQUALS => compared(Ordering::is_ge),
            _ => None,
        }
    }

    fn value(&self, variables: &[f64], words: Words<'_>) -> Option<bool> {
        let value = |one: &Truth| one.value(variables, words);
        match self {
            // What is not a number compares to nothing.
            Truth::Compared(of, pair) => {
                let [one, other] = [pair[0].value(variables, words)?, pair[1].value(variables, words)?];
                Some(of(one.partial_cmp(&other)?))
            }
            Truth::Is(word, those) => Some(those.iter().any(|text| text == words.single[*word])),
            Truth::Labelled(text) => Some(words.labels.contains(text)),
            Truth::Not(one) => Some(!value(one)?),
            Truth::And(both) => Some(value(&both[0])? && value(&both[1])?),
            Truth::Or(both) => Some(value(&both[0])? || value(&both[1])?),
        }
    }
}

fn pair<T>(arguments: &[IdedExpr], of: impl Fn(&IdedExpr) -> Option<T>) -> Option<[T; 2]> {
    let [one, other] = arguments else { return None };
    Some([of(one)?, of(other)?])
}

/// A comparison of a word with a text.
fn is_word(arguments: &[IdedExpr]) -> Option<Truth> {
    let [one, other] = arguments else { return None };
    let is = |name: &Expr, other: &Expr| Some(Truth::Is(word(name)?, vec![text(other)?]));
    is(&one.expr, &other.expr).or_else(|| is(&other.expr, &one.expr))
}

/// A word that is in a list of texts.
fn is_listed(arguments: &[IdedExpr]) -> Option<Truth> {
    let [name, list] = arguments else { return None };
    let Expr::List(list) = &list.expr else { return None };
    let those: Option<Vec<String>> = list.elements.iter().map(|one| text(&one.expr)).collect();
    Some(Truth::Is(word(&name.expr)?, those?))
}

/// A text that is one of the labels.
fn is_labelled(arguments: &[IdedExpr]) -> Option<Truth> {
    let [label, list] = arguments else { return None };
    let Expr::Ident(name) = &list.expr else { return None };
    Some(Truth::Labelled(text(&label.expr).filter(|_| name == LABELS)?))
}

fn word(name: &Expr) -> Option<usize> {
    let Expr::Ident(name) = name else { return None };
    WORDS.iter().position(|known| known == name)
}

fn text(literal: &Expr) -> Option<String> {
    match literal {
        Expr::Literal(LiteralValue::String(text)) => Some(text.inner().to_owned()),
        _ => None,
    }
}
