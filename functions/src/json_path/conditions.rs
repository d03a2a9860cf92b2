//! Conditions of paths: true, false, or unknown where items cannot be compared or looking for them fails.

use std::cmp::Ordering;

use flowstone_types::budget;
use flowstone_types::jsonb::{Jsonb, JsonbKind};

use super::evaluate::{Evaluator, Flow, Scope, Sink};
use super::operands::{Operand, Operands};
use super::{Comparison, Kind, Node, Pattern};
use crate::errors::{EvalResult, internal};

/// True, false, or unknown.
pub(super) type Truth = Option<bool>;

impl Evaluator<'_> {
    /// The truth of a condition.
    pub(super) fn truth(&mut self, node: &Node, scope: Scope<'_>) -> EvalResult<Truth> {
        Ok(match &node.kind {
            Kind::And(left, right) => match self.truth(left, scope)? {
                Some(false) => Some(false),
                // A condition that is false makes it false, whatever the other is.
                left => match self.truth(right, scope)? {
                    Some(true) => left,
                    right => right,
                },
            },
            Kind::Or(left, right) => match self.truth(left, scope)? {
                Some(true) => Some(true),
                left => match self.truth(right, scope)? {
                    Some(false) => left,
                    right => right,
                },
            },
            Kind::Not(condition) => self.truth(condition, scope)?.map(|truth| !truth),
            Kind::IsUnknown(condition) => Some(self.truth(condition, scope)?.is_none()),
            Kind::Exists(node) => self.something(node, scope)?,
            Kind::Compare(op, left, right) => {
                let rights = |own: &mut Self| own.operands(right, scope, Unwraps::Yes);
                self.any_pair(left, scope, rights, |left, right| compare(*op, left, right))?
            }
            Kind::StartsWith(left, start) => {
                let starts = |own: &mut Self| own.operands(start, scope, Unwraps::No);
                self.any_pair(left, scope, starts, |whole, start| {
                    Some(
                        whole
                            .scalar()?
                            .as_str()?
                            .starts_with(start.scalar()?.as_str()?),
                    )
                })?
            }
            Kind::LikeRegex(left, pattern) => self.matches(left, pattern, scope)?,
            Kind::Root
            | Kind::Current
            | Kind::Last
            | Kind::Value(_)
            | Kind::Variable(_)
            | Kind::Arithmetic(..)
            | Kind::Sign(..) => {
                return Err(internal("a condition is a sequence of items"));
            }
        })
    }

    /// Whether there is anything; unknown if that fails.
    fn something(&mut self, node: &Node, scope: Scope<'_>) -> EvalResult<Truth> {
        let scope = scope.silent();
        let mut is_some = false;
        let mut note = |_: Jsonb<'_>| {
            is_some = true;
            Ok(())
        };
        // A strict path looks at everything, since something may be wrong with it.
        let mut sink = if self.is_lax {
            Sink::Any
        } else {
            Sink::Each(&mut note)
        };
        let flow = self.node(node, scope, &mut sink)?;
        Ok(match flow {
            Flow::Failed => None,
            Flow::Stop => Some(true),
            Flow::Next => Some(is_some),
        })
    }

    /// The items of an operand; `None` if it fails.
    fn operands(
        &mut self,
        node: &Node,
        scope: Scope<'_>,
        unwraps: Unwraps,
    ) -> EvalResult<Option<Vec<Operand>>> {
        let scope = scope.silent();
        let mut operands = Operands::default();
        let mut add = |value: Jsonb<'_>| operands.add(value);
        let flow = match unwraps {
            Unwraps::Yes => self.unwrapped(node, scope, &mut add)?,
            Unwraps::No => self.node(node, scope, &mut Sink::Each(&mut add))?,
        };
        Ok((flow != Flow::Failed).then_some(operands.all))
    }

    /// Whether `holds` of any pair of items. In a lax path one that holds suffices; in a strict one nothing may be unknown.
    fn any_pair(
        &mut self,
        left: &Node,
        scope: Scope<'_>,
        rights: impl FnOnce(&mut Self) -> EvalResult<Option<Vec<Operand>>>,
        holds: impl Fn(&Operand, &Operand) -> Truth,
    ) -> EvalResult<Truth> {
        let Some(lefts) = self.operands(left, scope, Unwraps::Yes)? else {
            return Ok(None);
        };
        let Some(rights) = rights(self)? else {
            return Ok(None);
        };
        let mut sum = Sum::new(self.is_lax);
        for left in &lefts {
            budget::check()?;
            for right in &rights {
                if let Some(truth) = sum.add(holds(left, right)) {
                    return Ok(truth);
                }
            }
        }
        Ok(sum.truth())
    }

    fn matches(&mut self, left: &Node, pattern: &Pattern, scope: Scope<'_>) -> EvalResult<Truth> {
        let Some(lefts) = self.operands(left, scope, Unwraps::Yes)? else {
            return Ok(None);
        };
        let mut sum = Sum::new(self.is_lax);
        for left in &lefts {
            budget::check()?;
            let truth = match left.scalar().and_then(Jsonb::as_str) {
                Some(text) => {
                    let compiled = self.patterns.get(text, &pattern.text, &pattern.flags)?;
                    Some(compiled.is_match(text))
                }
                None => None,
            };
            if let Some(truth) = sum.add(truth) {
                return Ok(truth);
            }
        }
        Ok(sum.truth())
    }
}

/// Whether arrays are looked into.
#[derive(Clone, Copy)]
enum Unwraps {
    Yes,
    No,
}

/// The truth of a condition over pairs of items.
struct Sum {
    is_lax: bool,
    is_true: bool,
    is_unknown: bool,
}

impl Sum {
    const fn new(is_lax: bool) -> Self {
        Self {
            is_lax,
            is_true: false,
            is_unknown: false,
        }
    }

    /// Adds that of a pair; the truth of all if no other pair changes it.
    fn add(&mut self, truth: Truth) -> Option<Truth> {
        match (truth, self.is_lax) {
            (None, false) => return Some(None),
            (Some(true), true) => return Some(Some(true)),
            (None, true) => self.is_unknown = true,
            (Some(true), false) => self.is_true = true,
            (Some(false), _) => {}
        }
        None
    }

    fn truth(&self) -> Truth {
        if self.is_true {
            Some(true)
        } else {
            (!self.is_unknown).then_some(false)
        }
    }
}

/// Null is compared with everything, other scalars with those of their kind.
fn compare(op: Comparison, left: &Operand, right: &Operand) -> Truth {
    let is_null = |operand: &Operand| operand.scalar().is_some_and(Jsonb::is_null);
    if is_null(left) != is_null(right) {
        return Some(op == Comparison::NotEqual);
    }
    let (left, right) = (left.scalar()?, right.scalar()?);
    if left.kind() != right.kind() {
        return None;
    }
    let order = match left.kind() {
        JsonbKind::Null => Ordering::Equal,
        JsonbKind::Bool => left.as_bool().cmp(&right.as_bool()),
        JsonbKind::Number => left.as_number().cmp(&right.as_number()),
        JsonbKind::String => left.as_str().cmp(&right.as_str()),
        JsonbKind::Array | JsonbKind::Object => return None,
    };
    Some(match op {
        Comparison::Equal => order.is_eq(),
        Comparison::NotEqual => order.is_ne(),
        Comparison::Less => order.is_lt(),
        Comparison::LessOrEqual => order.is_le(),
        Comparison::Greater => order.is_gt(),
        Comparison::GreaterOrEqual => order.is_ge(),
    })
}
