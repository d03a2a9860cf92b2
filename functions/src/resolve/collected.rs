//! Calls of aggregates and window functions: the nodes that a plan has for each, and the value that is made of these.

use std::sync::Arc;

use arrow_schema::{Field, FieldRef};
use datafusion::common::{Result, ScalarValue, internal_err};
use datafusion::logical_expr::expr::{AggregateFunction, WindowFunction};
use datafusion::logical_expr::{AggregateUDF, Expr, WindowFunctionDefinition};
use flowstone_types::SqlType;

use super::aggregates::Collects;
use super::built::{arguments_of, returned};
use super::meaning::{call_named, settled, type_of};
use super::signature::Signature;
use super::{CallError, Given};
use crate::cast::cast_expr;

/// Where an aggregate is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Over the rows of a group.
    Group,
    /// Over the rows of a window.
    Window,
}

/// See the module documentation.
#[derive(Clone, Debug)]
pub(super) struct Collected {
    collects: Collects,
    place: Place,
    pub(super) arguments: Vec<SqlType>,
    /// The type that the value is brought to; `None` if that is the type of the node.
    to: Option<SqlType>,
}

fn field_of(sql_type: &SqlType) -> FieldRef {
    Arc::new(sql_type.to_field("value", true))
}

/// The field of an aggregate over values of these types. `count(*)` counts ones.
fn aggregate_field(function: &AggregateUDF, types: &[SqlType]) -> Result<FieldRef> {
    let mut fields: Vec<FieldRef> = types.iter().map(field_of).collect();
    if fields.is_empty() {
        fields.push(field_of(&SqlType::Int8));
    }
    function.return_field(&fields)
}

impl Collected {
    /// A call by a signature that takes what is given.
    pub(super) fn of(
        signature: &Signature<Collects>,
        given: &[Given],
        place: Place,
    ) -> std::result::Result<Self, CallError> {
        let arguments = arguments_of(signature, given)?;
        let to = returned(&signature.returns, &arguments, given);
        Ok(Self {
            collects: signature.meaning.clone(),
            place,
            arguments,
            to,
        })
    }

    /// The type of the value.
    pub(super) fn value_type(&self) -> std::result::Result<SqlType, CallError> {
        match &self.to {
            Some(to) => Ok(to.clone()),
            None => Ok(type_of(self.field()?.as_ref())?),
        }
    }

    /// The field of the only node.
    fn field(&self) -> Result<FieldRef> {
        match &self.collects {
            Collects::Aggregate(function)
            | Collects::Documents(function)
            | Collects::Members(function) => aggregate_field(function, &self.arguments),
            Collects::Window(function) => {
                let fields: Vec<FieldRef> = self.arguments.iter().map(field_of).collect();
                WindowFunctionDefinition::WindowUDF(Arc::clone(function))
                    .return_field(&fields, function.name())
            }
        }
    }

    fn aggregate(&self, function: &Arc<AggregateUDF>, mut args: Vec<Expr>) -> Expr {
        if args.is_empty() {
            args.push(Expr::Literal(ScalarValue::Int64(Some(1)), None));
        }
        let function = Arc::clone(function);
        match self.place {
            Place::Group => Expr::AggregateFunction(AggregateFunction::new_udf(
                function,
                args,
                false,
                None,
                vec![],
                None,
            )),
            Place::Window => Expr::WindowFunction(Box::new(WindowFunction::new(function, args))),
        }
    }

    /// The nodes that compute it, whose arguments are of the types that they must be of.
    pub(super) fn nodes(&self, args: Vec<Expr>) -> Result<Vec<Expr>> {
        if args.len() != self.arguments.len() {
            return internal_err!(
                "a call of {} arguments is given {}",
                self.arguments.len(),
                args.len()
            );
        }
        Ok(match &self.collects {
            Collects::Aggregate(function) | Collects::Documents(function) => {
                vec![self.aggregate(function, args)]
            }
            Collects::Window(function) => vec![Expr::WindowFunction(Box::new(
                WindowFunction::new(Arc::clone(function), args),
            ))],
            Collects::Members(function) => {
                let (Ok([key, value]), [key_type, _]) =
                    (<[Expr; 2]>::try_from(args), self.arguments.as_slice())
                else {
                    return internal_err!("an object has keys and values");
                };
                let key = match key_type {
                    // It is printed with its padding.
                    SqlType::Char(_) => key,
                    other => cast_expr(key, other, &SqlType::Text)?,
                };
                let value = call_named("to_jsonb", vec![value])?;
                vec![
                    self.aggregate(function, vec![key]),
                    self.aggregate(function, vec![value]),
                ]
            }
        })
    }

    /// The value, made of its nodes or of the columns that hold what they gave.
    pub(super) fn finish(&self, nodes: Vec<Expr>) -> Result<Expr> {
        if let Collects::Members(_) = self.collects {
            return call_named("jsonb_object_lists", nodes);
        }
        let Ok([node]) = <[Expr; 1]>::try_from(nodes) else {
            return internal_err!("an aggregate has one node");
        };
        let field = self.field()?;
        let made: &Field = field.as_ref();
        if let (Collects::Documents(_), [item]) = (&self.collects, self.arguments.as_slice()) {
            let values = SqlType::Array(Box::new(item.clone()));
            return call_named("to_jsonb", vec![settled(node, made, &values)?]);
        }
        match &self.to {
            Some(to) => settled(node, made, to),
            None => settled(node, made, &type_of(made)?),
        }
    }
}
