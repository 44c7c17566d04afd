//! The expression that turns what was measured of a service into the one load that is reported (CEL, the Common
//! Expression Language).

use std::fmt;
use std::sync::Arc;

use cel::{Context, Program, Value};

use crate::cost;

/// What an expression may look at. All are numbers with a fraction: write `2.0`, not `2`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Inputs {
    /// Share of the processors' time that is in use, 0 to 1.
    pub cpu: f64,
    /// Share of the time in which something waited for a processor (PSI), 0 to 1.
    pub cpu_pressure: f64,
    /// Share of the memory that is in use and cannot be had back, 0 to 1.
    pub memory: f64,
    /// Share of the time in which something waited for memory (PSI), 0 to 1.
    pub memory_pressure: f64,
    /// Established TCP connections of the service.
    pub established: f64,
    /// The fullest accept queue of the service, 0 to 1.
    pub queue: f64,
    /// Bytes a second to the service.
    pub bytes_in: f64,
    /// Bytes a second from it.
    pub bytes_out: f64,
    /// What the application says; 0 where it says nothing.
    pub application: f64,
}

impl Inputs {
    fn named(&self) -> [(&'static str, f64); 9] {
        [
            ("cpu", self.cpu),
            ("cpu_pressure", self.cpu_pressure),
            ("memory", self.memory),
            ("memory_pressure", self.memory_pressure),
            ("established", self.established),
            ("queue", self.queue),
            ("bytes_in", self.bytes_in),
            ("bytes_out", self.bytes_out),
            ("application", self.application),
        ]
    }
}

/// A checked expression.
#[derive(Clone)]
pub struct Expression {
    text: Arc<str>,
    program: Arc<Program>,
}

impl Expression {
    /// Reads an expression, and tries it.
    ///
    /// # Errors
    /// What is wrong with it, to stand behind "expression ...".
    pub fn new(text: &str) -> Result<Expression, String> {
        let program = cost::compile(text).map_err(|error| match error.at {
            Some(at) => format!("{error} (character {})", at + 1),
            None => error.to_string(),
        })?;
        let known = Inputs::default().named().map(|(name, _)| name);
        let unknown =
            program.references().variables().into_iter().find(|name| !known.contains(name)).map(str::to_owned);
        if let Some(unknown) = unknown {
            return Err(format!("names \"{unknown}\", which is not measured; there are {}", known.join(", ")));
        }
        let expression = Expression { text: text.into(), program: Arc::new(program) };
        let busy = Inputs {
            cpu: 0.5,
            cpu_pressure: 0.1,
            memory: 0.5,
            memory_pressure: 0.1,
            established: 100.0,
            queue: 0.1,
            bytes_in: 1e6,
            bytes_out: 1e7,
            application: 1.0,
        };
        expression.evaluate(&busy)?;
        Ok(expression)
    }

    /// As it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The load: finite, at least 0.
    ///
    /// # Errors
    /// Why there is none, to stand behind "expression ...".
    pub fn evaluate(&self, inputs: &Inputs) -> Result<f64, String> {
        let mut context = Context::default();
        // Names that the language does not have; declaring them fails only where it has.
        let _ = context.add_function("max", cel::functions::max);
        let _ = context.add_function("min", cel::functions::min);
        for (name, value) in inputs.named() {
            context.add_variable_from_value(name, value);
        }
        let load = match self.program.execute(&context) {
            Ok(Value::Float(load)) => load,
            Ok(Value::Int(load)) => load as f64,
            Ok(Value::UInt(load)) => load as f64,
            Ok(_) => return Err("gives no number".into()),
            Err(error) => {
                return Err(format!("fails ({}); all numbers have a fraction here, so write 2.0, not 2", error));
            }
        };
        match load.is_finite() && load >= 0.0 {
            true => Ok(load),
            false => Err(format!("gives {load}; a load is a number from 0 up")),
        }
    }
}

impl fmt::Debug for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Expression({:?})", self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expression_weighs_what_was_measured() {
        let inputs = Inputs { cpu: 0.25, queue: 0.5, established: 30.0, application: 7.0, ..Inputs::default() };
        for (text, load) in [
            ("cpu", 0.25),
            ("max(cpu, queue)", 0.5),
            ("cpu * 2.0 + established / 60.0", 1.0),
            ("application > 5.0 ? 1.0 : cpu", 1.0),
            ("3", 3.0),
        ] {
            assert_eq!(Expression::new(text).and_then(|expression| expression.evaluate(&inputs)), Ok(load), "{text}");
        }
    }

    #[test]
    fn what_gives_no_load_is_refused_and_says_why() {
        for (text, why) in [
            ("cpu +", "is no expression here"),
            ("", "is no expression here"),
            ("cpus", "names \"cpus\", which is not measured; there are cpu, "),
            ("cpu * 2", "write 2.0, not 2"),
            ("\"high\"", "gives no number"),
            ("cpu - 1.0", "gives -0.5; a load is a number from 0 up"),
            ("1.0 / 0.0", "gives inf"),
        ] {
            let said = Expression::new(text).map(|expression| expression.text).expect_err(text);
            assert!(said.contains(why), "{text}: {said}");
        }
    }
}
