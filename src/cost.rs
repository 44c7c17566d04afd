//! What a child costs and what a router is worth to its parent, as the operator's expressions (CEL) say.
//!
//! | variable     | in `F` (a child's cost)                                                        | in `G` (what is told upward)   |
//! |--------------|--------------------------------------------------------------------------------|--------------------------------|
//! | `load`       | what the child says, 1.0 is all that it can do; 0.0 while it says nothing      |                                |
//! | `capacity`   | what the child says that it can do; its weight while it says nothing           |                                |
//! | `route_cost` | the child's `route_cost`: a number, its round-trip time in ms, or a route's metric |                                |
//! | `rtt_ms`     | round-trip time of its session or checks in ms, 0.0 while it is not known      |                                |
//! | `weight`, `cost`, `tier` | as configured for the child in the virtual host                    |                                |
//! | `child`      | its name                                                                       |                                |
//! | `labels`     | its `labels`, a list of texts: `'ssd' in labels`                                |                                |
//! | `client_region` | name of the region that new flows come from, empty for clients in none       |                                |
//! | `children`   |                                                                                | those that take flows, as maps of all of the above |
//! | `level`      | level of this router                                                           | the same                       |
//! | `hour`, `minute`, `weekday` | in the router's time zone; Monday is 1.0                        | the same                       |
//!
//! Numbers are all floating-point, and CEL does not mix them with whole ones: write `2.0 * load`. Beside what CEL has there
//! are `sum`, `mean`, `least` and `most` of a list of numbers. `F` gives a cost, `G` a load (1.0 is all that it can do).

mod arithmetic;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::thread;

use arithmetic::{LABELS, Number, WORDS, Words};
use cel::{Context, ExecutionError, Program, Value};
use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::clock::WallClock;

/// Longest expression, in characters.
const LENGTH_MAX: usize = 1000;

/// Most opening brackets and question marks: each may take the parser one level deeper.
const DEPTH_MAX: usize = 100;

/// Bytes of the parser's stack: ten times what the deepest takes in a build without optimisation.
const STACK: usize = 32 << 20;

/// The variable that says where a client is.
const REGION: &str = "client_region";

/// What an expression tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `F`: a child's cost.
    Child,
    /// `G`: what is told upward.
    Upward,
}

impl Kind {
    fn variables(self) -> &'static [&'static str] {
        match self {
            Kind::Child => &[
                "load",
                "capacity",
                "route_cost",
                "rtt_ms",
                "weight",
                "cost",
                "tier",
                "child",
                "labels",
                "client_region",
                "level",
                "hour",
                "minute",
                "weekday",
            ],
            Kind::Upward => &["children", "level", "hour", "minute", "weekday"],
        }
    }
}

/// A function of a list, by its name.
type OfList = (&'static str, fn(&[f64]) -> f64);

/// Those that CEL does not have.
const FUNCTIONS: [OfList; 4] = [
    ("sum", |list| list.iter().sum()),
    ("mean", |list| list.iter().sum::<f64>() / list.len().max(1) as f64),
    ("least", |list| list.iter().copied().fold(f64::INFINITY, f64::min)),
    ("most", |list| list.iter().copied().fold(f64::NEG_INFINITY, f64::max)),
];

/// What an expression may know of one child.
#[derive(Clone, Debug, PartialEq)]
pub struct Child<'a> {
    /// Its name.
    pub name: &'a str,
    /// What the operator says of it.
    pub labels: &'a [String],
    /// Name of the region whose new flows it would get; empty: of clients in none.
    pub client_region: &'a str,
    /// 1 where it does all that it can.
    pub load: f64,
    /// How much it can do, in the unit of weights.
    pub capacity: f64,
    /// Distance, in the operator's unit.
    pub route_cost: f64,
    /// Time to it and back, in milliseconds; 0 while it is not known.
    pub rtt_ms: f64,
    /// Configured.
    pub weight: f64,
    /// Configured.
    pub cost: f64,
    /// Configured.
    pub tier: f64,
}

impl Child<'_> {
    const NUMBERS: [&'static str; 7] = ["load", "capacity", "route_cost", "rtt_ms", "weight", "cost", "tier"];

    /// In that order.
    fn numbers(&self) -> [f64; 7] {
        [self.load, self.capacity, self.route_cost, self.rtt_ms, self.weight, self.cost, self.tier]
    }

    fn words(&self) -> Words<'_> {
        Words { single: [self.name, self.client_region], labels: self.labels }
    }

    fn label_list(&self) -> Vec<Value> {
        self.labels.iter().map(|label| Value::String(Arc::new(label.clone()))).collect()
    }
}

/// What an expression may know beside children.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Here {
    /// Level of this router.
    level: u8,
    /// From 0.
    hour: i8,
    /// From 0.
    minute: i8,
    /// Monday is 1.
    weekday: i8,
}

impl Here {
    const NUMBERS: [&'static str; 4] = ["level", "hour", "minute", "weekday"];

    /// A router of this level, when the calendar is at `wall` and clocks beside it go by `zone`.
    pub fn at(level: u8, WallClock(wall): WallClock, zone: &TimeZone) -> Here {
        let time = i64::try_from(wall).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
        let local = zone.to_datetime(time.unwrap_or(Timestamp::MAX));
        let weekday = local.weekday().to_monday_one_offset();
        Here { level, hour: local.hour(), minute: local.minute(), weekday }
    }

    /// In the order of their names.
    fn numbers(self) -> [f64; 4] {
        [self.level.into(), self.hour.into(), self.minute.into(), self.weekday.into()]
    }
}

/// Why an expression is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ExpressionError {
    /// Characters of the expression before what is wrong; `None` where it is the whole.
    pub at: Option<usize>,
    /// What is wrong, and what to do.
    pub message: String,
}

/// Reads an expression, whatever it may name.
///
/// # Errors
/// The first thing that is wrong, with its place where that is known.
pub fn compile(source: &str) -> Result<Program, ExpressionError> {
    let wrong = |at, message| Err(ExpressionError { at, message });
    if source.chars().count() > LENGTH_MAX {
        return wrong(None, format!("has more than {LENGTH_MAX} characters; write a shorter one"));
    }
    if source.contains(['\n', '\r']) {
        return wrong(None, "goes over more than one line; write it in one".into());
    }
    if source.chars().filter(|c| "([{?".contains(*c)).count() > DEPTH_MAX {
        return wrong(None, format!("has more than {DEPTH_MAX} brackets and question marks; write a simpler one"));
    }
    // On a stack of its own: the parser goes deep, and one that trips over strange text must not take the program with it.
    let compiled = thread::scope(|scope| {
        let builder = thread::Builder::new().name("expression".into()).stack_size(STACK);
        builder.spawn_scoped(scope, || Program::compile(source)).ok()?.join().ok()
    });
    let Some(compiled) = compiled else { return wrong(None, "is none that can be read".into()) };
    compiled.or_else(|errors| {
        let Some(first) = errors.errors.first() else { return wrong(None, "is none".into()) };
        let at = usize::try_from(first.pos.1 - 1).unwrap_or(0);
        let said: String = first.msg.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        wrong(Some(at), format!("is no expression here: {said}"))
    })
}

/// An expression that has been checked.
#[derive(Clone)]
pub struct Expression {
    source: String,
    program: Arc<Program>,
    /// The same, where it is no more than that.
    arithmetic: Option<Arc<Number>>,
    kind: Kind,
}

impl fmt::Debug for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.source)
    }
}

impl PartialEq for Expression {
    fn eq(&self, other: &Expression) -> bool {
        (&self.source, self.kind) == (&other.source, other.kind)
    }
}

impl Expression {
    /// Checks an expression: its grammar, its names, and what becomes of it with everyday values.
    ///
    /// # Errors
    /// The first thing that is wrong, with its place where that is known.
    pub fn new(source: &str, kind: Kind) -> Result<Expression, ExpressionError> {
        let wrong = |at, message| Err(ExpressionError { at, message });
        let program = compile(source)?;
        let known = kind.variables();
        // A macro's own variable counts as a reference; those of the children are what it is for.
        let references = program.references();
        for name in references.variables() {
            let bound = source.contains(&format!("({name},")) || source.contains(&format!("({name} ,"));
            if !known.contains(&name) && !bound {
                let message = format!("names {name}, which is not there; there are {}", known.join(", "));
                return wrong(source.find(name).map(|byte| source[..byte].chars().count()), message);
            }
        }
        let numbers = Child::NUMBERS.into_iter().chain(Here::NUMBERS).collect::<Vec<_>>();
        let arithmetic = Number::of(program.expression(), &numbers).filter(|_| kind == Kind::Child).map(Arc::new);
        let expression = Expression { source: source.to_owned(), program: Arc::new(program), arithmetic, kind };
        let busy = Child {
            name: "server1",
            labels: &[],
            client_region: "",
            load: 0.5,
            capacity: 100.0,
            route_cost: 1.0,
            rtt_ms: 1.5,
            weight: 100.0,
            cost: 1.0,
            tier: 0.0,
        };
        let idle = Child { load: 0.0, rtt_ms: 0.0, route_cost: 0.0, ..busy.clone() };
        let here = Here { level: 1, weekday: 1, ..Here::default() };
        let tried = match kind {
            Kind::Child => expression.of_child(&busy, here).and_then(|_| expression.of_child(&idle, here)),
            Kind::Upward => expression.upward(&[busy, idle], here),
        };
        match tried {
            Ok(_) => Ok(expression),
            Err(error) => wrong(None, format!("does not work: {error}; numbers need a point, as in 2.0 * load")),
        }
    }

    /// As it was written.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Whether it names any of these variables.
    pub fn names(&self, variables: &[&str]) -> bool {
        let references = self.program.references();
        references.variables().iter().any(|name| variables.contains(name))
    }

    /// Whether it asks where clients are.
    pub fn asks_for_region(&self) -> bool {
        self.names(&[REGION])
    }

    /// The regions that it compares a client's with, as far as it can be worked out without the interpreter.
    pub fn regions(&self) -> Vec<&str> {
        let mut regions = Vec::new();
        if let (Some(arithmetic), Some(word)) = (&self.arithmetic, WORDS.iter().position(|word| *word == REGION)) {
            arithmetic.compared(word, &mut regions);
        }
        regions
    }

    /// Whether its value changes with the time of day.
    pub fn changes_with_time(&self) -> bool {
        self.names(&["hour", "minute", "weekday"])
    }

    /// `F` of a child.
    ///
    /// # Errors
    /// Why it has no value, in a sentence.
    pub fn of_child(&self, child: &Child<'_>, here: Here) -> Result<f64, String> {
        if let Some(arithmetic) = &self.arithmetic {
            let [load, capacity, route_cost, rtt_ms, weight, cost, tier] = child.numbers();
            let [level, hour, minute, weekday] = here.numbers();
            let numbers = [load, capacity, route_cost, rtt_ms, weight, cost, tier, level, hour, minute, weekday];
            // What is not a number has an error, which CEL tells.
            if let Some(value) = arithmetic.value(&numbers, child.words()).filter(|value| !value.is_nan()) {
                return Ok(value);
            }
        }
        self.interpreted(child, here)
    }

    /// `F` of a child by CEL's interpreter.
    fn interpreted(&self, child: &Child<'_>, here: Here) -> Result<f64, String> {
        let mut context = context();
        let numbers = Child::NUMBERS.into_iter().zip(child.numbers());
        numbers.chain(Here::NUMBERS.into_iter().zip(here.numbers())).for_each(|(name, number)| {
            context.add_variable_from_value(name, number);
        });
        context.add_variable_from_value(LABELS, child.label_list());
        WORDS
            .into_iter()
            .zip(child.words().single)
            .for_each(|(name, word)| context.add_variable_from_value(name, word));
        self.number(&context)
    }

    /// `G` of the children that take flows.
    ///
    /// # Errors
    /// Why it has no value, in a sentence.
    pub fn upward(&self, children: &[Child<'_>], here: Here) -> Result<f64, String> {
        let mut context = context();
        let numbers = Here::NUMBERS.into_iter().zip(here.numbers());
        numbers.for_each(|(name, number)| context.add_variable_from_value(name, number));
        let children = children.iter().map(|child| {
            let numbers = Child::NUMBERS.into_iter().zip(child.numbers());
            let numbers = numbers.map(|(name, number)| (name.to_owned(), Value::Float(number)));
            let name = ("child".to_owned(), Value::String(Arc::new(child.name.to_owned())));
            let labels = (LABELS.to_owned(), Value::from(child.label_list()));
            Value::from(numbers.chain([name, labels]).collect::<HashMap<String, Value>>())
        });
        context.add_variable_from_value("children", children.collect::<Vec<Value>>());
        self.number(&context)
    }

    fn number(&self, context: &Context<'_, '_>) -> Result<f64, String> {
        let value = match self.program.execute(context) {
            Ok(Value::Float(number)) => number,
            Ok(Value::Int(number)) => number as f64,
            Ok(Value::UInt(number)) => number as f64,
            Ok(other) => return Err(format!("it gives {:?}, which is no number", other.type_of())),
            Err(error) => {
                let said = error.to_string();
                return Err(said.chars().map(|c| if c.is_control() { ' ' } else { c }).take(200).collect());
            }
        };
        if value.is_nan() { Err("it gives what is not a number".into()) } else { Ok(value) }
    }
}

fn context<'a>() -> Context<'a, 'a> {
    let mut context = Context::default();
    for (name, function) in FUNCTIONS {
        let of = move |list: Arc<Vec<Value>>| {
            let number = |value: &Value| match value {
                Value::Float(number) => Ok(*number),
                Value::Int(number) => Ok(*number as f64),
                _ => Err(ExecutionError::function_error(name, "takes a list of numbers")),
            };
            list.iter().map(number).collect::<Result<Vec<f64>, _>>().map(|list| function(&list))
        };
        context.add_function(name, of).expect("CEL has no function of this name");
    }
    context
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    static LABELLED: std::sync::LazyLock<[String; 2]> =
        std::sync::LazyLock::new(|| ["ssd", "rack7"].map(str::to_owned));

    fn child(name: &str, load: f64, capacity: f64) -> Child<'_> {
        let (route_cost, rtt_ms, weight, cost, tier) = (2.0, 8.0, 100.0, 1.0, 0.0);
        let labels = if name == "far" { &LABELLED[..] } else { &[] };
        Child { name, labels, client_region: "asia", load, capacity, route_cost, rtt_ms, weight, cost, tier }
    }

    /// A Saturday, a quarter past 13.
    const HERE: Here = Here { level: 2, hour: 13, minute: 15, weekday: 6 };

    #[test]
    fn costs_are_what_the_expression_says() {
        for (source, expected) in [
            ("load", 0.25),
            ("load + 0.1 * route_cost", 0.45),
            ("child == 'far' ? 100.0 : rtt_ms", 100.0),
            ("hour >= 8.0 && hour < 18.0 && weekday <= 5.0 ? 1.0 : 7.0", 7.0),
            ("hour + weekday * 100.0 + level * 1000.0 + minute * 10000.0", 152_613.0),
            ("client_region == 'asia' ? 1.0 : 7.0", 1.0),
            ("client_region in ['europe', ''] ? 1.0 : 7.0", 7.0),
            ("'rack7' in labels && !('tape' in labels) ? 1.0 : 7.0", 1.0),
            ("labels.exists(label, label.startsWith('rack')) ? 1.0 : 7.0", 1.0),
            ("most([load, 0.5, capacity / weight])", 3.0),
            ("3", 3.0),
            ("1.0 / (load - 0.25)", f64::INFINITY),
        ] {
            let expression = Expression::new(source, Kind::Child).unwrap_or_else(|error| panic!("{source}: {error}"));
            assert_eq!(expression.of_child(&child("far", 0.25, 300.0), HERE), Ok(expected), "{source}");
        }
    }

    /// Expressions of everything that is worked out without the interpreter, and some of what is not.
    fn source() -> impl Strategy<Value = String> {
        let number = prop_oneof![
            Just("load".to_owned()),
            Just("capacity".to_owned()),
            Just("hour".to_owned()),
            Just("rtt_ms".to_owned()),
            (-3..4).prop_map(|number| format!("{number}.0")),
            Just("0.25".to_owned()),
            Just("2".to_owned()),
        ];
        number.prop_recursive(5, 40, 3, |inner| {
            let truth = (inner.clone(), inner.clone(), 0..10usize).prop_map(|(a, b, which)| match which {
                0 => "child == 'far'".to_owned(),
                1 => "'near' != child".to_owned(),
                2 => "client_region == 'asia'".to_owned(),
                3 => "'ssd' in labels".to_owned(),
                which => format!("{a} {} {b}", ["<", "<=", ">", ">=", "==", "!="][which - 4]),
            });
            let truth = truth.prop_recursive(2, 6, 2, |inner| {
                (inner.clone(), inner, 0..3usize).prop_map(|(a, b, which)| match which {
                    0 => format!("!({a})"),
                    1 => format!("({a} && {b})"),
                    _ => format!("({a} || {b})"),
                })
            });
            prop_oneof![
                (inner.clone(), inner.clone(), 0..4usize).prop_map(|(a, b, which)| {
                    let sign = ["+", "-", "*", "/"][which];
                    format!("({a} {sign} {b})")
                }),
                inner.clone().prop_map(|a| format!("-({a})")),
                (inner.clone(), inner.clone(), 0..4usize)
                    .prop_map(|(a, b, which)| format!("{}([{a}, {b}])", FUNCTIONS[which].0)),
                (truth, inner.clone(), inner).prop_map(|(truth, a, b)| format!("({truth} ? {a} : {b})")),
            ]
        })
    }

    proptest! {
        #[test]
        fn without_the_interpreter_costs_are_the_same(source in source(), load in -1.0..2.0, far in any::<bool>()) {
            if let Ok(expression) = Expression::new(&source, Kind::Child) {
                let child = child(if far { "far" } else { "near" }, load, 0.0);
                prop_assert_eq!(expression.of_child(&child, HERE), expression.interpreted(&child, HERE), "{}", source);
            }
        }
    }

    #[test]
    fn everyday_costs_need_no_interpreter() {
        for (source, without) in [
            ("load", true),
            ("load + 0.1 * route_cost", true),
            ("child == 'far' ? 100.0 : rtt_ms", true),
            ("hour >= 8.0 && hour < 18.0 && weekday <= 5.0 ? 1.0 : 7.0", true),
            ("most([load, 0.5, capacity / weight])", true),
            ("client_region == 'asia' && minute < 30.0 ? load : cost", true),
            ("'ssd' in labels ? load : 2.0 * load", true),
            ("child.startsWith('f') ? 1.0 : load", false),
            ("double(int(load))", false),
        ] {
            let expression = Expression::new(source, Kind::Child).unwrap_or_else(|error| panic!("{source}: {error}"));
            assert_eq!(expression.arithmetic.is_some(), without, "{source}");
        }
    }

    #[test]
    fn the_regions_that_are_compared_are_known() {
        let source = "load + (client_region == 'asia' || !('' != client_region) && child == 'x' ? 1.0 : 2.0)";
        let expression = Expression::new(source, Kind::Child).unwrap();
        assert!(expression.asks_for_region());
        assert_eq!(expression.regions(), ["asia", ""]);
        let listed = Expression::new("client_region in ['asia', 'europe'] ? 1.0 : 2.0", Kind::Child).unwrap();
        assert_eq!(listed.regions(), ["asia", "europe"]);
        assert!(!Expression::new("load", Kind::Child).unwrap().asks_for_region());
    }

    #[test]
    fn the_time_of_day_is_that_of_the_zone_in_summer_and_in_winter() {
        let berlin = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
        for (time, zone, expected) in [
            ("1970-01-01T00:00:00Z", &TimeZone::UTC, [1.0, 0.0, 0.0, 4.0]),
            ("2026-11-22T23:59:59.999Z", &TimeZone::UTC, [1.0, 23.0, 59.0, 7.0]),
            ("2026-11-22T23:59:59.999Z", &berlin, [1.0, 0.0, 59.0, 1.0]),
            ("2026-03-29T00:59:00Z", &berlin, [1.0, 1.0, 59.0, 7.0]),
            ("2026-03-29T01:00:00Z", &berlin, [1.0, 3.0, 0.0, 7.0]),
            ("2026-10-25T01:30:00Z", &berlin, [1.0, 2.0, 30.0, 7.0]),
        ] {
            let wall = time.parse::<Timestamp>().unwrap().as_millisecond() as u64;
            assert_eq!(Here::at(1, WallClock(wall), zone).numbers(), expected, "{time}");
        }
        // A calendar beyond all measure is no reason to fail.
        assert_eq!(Here::at(1, WallClock(u64::MAX), &TimeZone::UTC).numbers()[1], 22.0);
    }

    #[test]
    fn what_is_told_upward_is_made_of_all_children() {
        let children = [child("a", 0.2, 100.0), child("b", 0.8, 300.0)];
        for (source, expected) in [
            ("mean(children.map(c, c.load))", 0.5),
            ("sum(children.map(c, c.load * c.capacity)) / sum(children.map(c, c.capacity))", 0.65),
            ("least(children.map(c, c.load))", 0.2),
            ("children.exists(c, c.child == 'b') ? 1.0 : 0.0", 1.0),
            ("children.exists(c, 'ssd' in c.labels) ? 1.0 : 0.0", 0.0),
        ] {
            let expression = Expression::new(source, Kind::Upward).unwrap_or_else(|error| panic!("{source}: {error}"));
            let value = expression.upward(&children, HERE).unwrap();
            assert!((value - expected).abs() < 1e-9, "{source}: {value}");
        }
    }

    #[test]
    fn what_is_wrong_is_found_at_once_with_its_place() {
        for (source, kind, at, says) in [
            ("load +", Kind::Child, Some(6), "is no expression here"),
            ("load + lod", Kind::Child, Some(7), "names lod, which is not there; there are load, capacity"),
            ("children", Kind::Child, Some(0), "names children, which is not there"),
            ("load", Kind::Upward, Some(0), "names load, which is not there; there are children, level"),
            ("2 * load", Kind::Child, None, "numbers need a point"),
            ("child", Kind::Child, None, "which is no number"),
            ("load > 0.5", Kind::Child, None, "which is no number"),
            ("sum(['a'])", Kind::Child, None, "takes a list of numbers"),
            ("load\n+ load", Kind::Child, None, "more than one line"),
            ("0.0 / 0.0", Kind::Child, None, "not a number"),
        ] {
            let error = Expression::new(source, kind).expect_err(source);
            assert!(error.message.contains(says) && !error.message.contains('\n'), "{source}: {error}");
            assert_eq!(error.at, at, "{source}: {error}");
        }
        for nested in ["(", "[", "{", "load > 1.0 ? 2.0 : "] {
            let error = Expression::new(&nested.repeat(DEPTH_MAX + 1), Kind::Child).expect_err(nested);
            assert!(nested.len() > 1 || error.message.contains("simpler"), "{nested}: {error}");
            assert!(Expression::new(&nested.repeat(40), Kind::Child).is_err(), "{nested}");
        }
        assert!(Expression::new(&format!("1.0{}", " ".repeat(1000)), Kind::Child).is_err());
    }
}
