//! What can be called: parameters, results, and how arguments are brought to them.
//!
//! Owns the solution of polymorphic parameters. Must not know names, nor how one of several signatures is chosen.

use flowstone_types::SqlType;
use itertools::Itertools;

use super::Given;
use super::casts::is_implicit;
use super::category::{TypeCategory, category, is_preferred};
use super::common::{common_type, decimal_shape};

/// A parameter.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Param {
    /// Of this type, which has no modifier.
    Of(SqlType),
    /// `any`: each argument for itself.
    Any,
    /// `anyelement`
    Element,
    /// `anynonarray`
    NonArray,
    /// `anyarray`
    Array,
    /// `anycompatible`
    Compatible,
    /// `anycompatiblearray`
    CompatibleArray,
}

impl Param {
    /// Whether it is of exactly this type.
    pub(super) fn is(&self, sql_type: &SqlType) -> bool {
        matches!(self, Self::Of(own) if *own == sql_type.without_modifier())
    }

    /// Its category; pseudo types have one of their own.
    pub(super) fn category(&self) -> Option<TypeCategory> {
        match self {
            Self::Of(own) => Some(category(own)),
            _ => None,
        }
    }

    /// Whether its type is the preferred one of its category.
    pub(super) fn is_preferred(&self) -> bool {
        matches!(self, Self::Of(own) if is_preferred(own))
    }

    fn is_element_like(&self) -> bool {
        matches!(self, Self::Element | Self::NonArray | Self::Array)
    }

    fn is_float(&self) -> bool {
        matches!(self, Self::Of(SqlType::Float4 | SqlType::Float8))
    }
}

/// The type of a result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Returns {
    /// What the field says that the function returns for its arguments.
    Made,
    /// This one.
    Sql(SqlType),
    /// That of the argument at this position, padded as it was given.
    Same(usize),
    /// That of the argument at this position before it was cast.
    AsGiven(usize),
    /// An array of the argument at this position.
    ArrayOf(usize),
    /// An array of the argument at this position before it was cast.
    ArrayOfGiven(usize),
}

/// How arguments are brought to parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fit {
    /// Each is cast to the type of its parameter.
    Cast,
    /// What has a type is taken as it is: the function converts numbers itself.
    AsGiven,
    /// Two values that are compared: numbers as they are given unless one is a float, others cast.
    Compare,
    /// Two values that are compared without the blanks at their ends.
    Padded,
    /// Cast, and then relieved of padding, which the function does not see.
    Blind,
    /// Cast to other types than the parameters are declared as, because the function takes these.
    To(Vec<SqlType>),
}

/// One way to call something that means an `M`.
#[derive(Clone, Debug)]
pub(super) struct Signature<M> {
    pub(super) params: Vec<Param>,
    /// Whether the last parameter may be given any number of times, zero included.
    pub(super) variadic: bool,
    pub(super) returns: Returns,
    pub(super) fit: Fit,
    /// Whether it yields rows: the items of an array, which is what `returns` is the type of.
    pub(super) returns_set: bool,
    pub(super) meaning: M,
}

impl<M> Signature<M> {
    /// A signature whose arguments are cast to its parameters.
    pub(super) fn new(params: Vec<Param>, returns: Returns, meaning: M) -> Self {
        Self {
            params,
            variadic: false,
            returns,
            fit: Fit::Cast,
            returns_set: false,
            meaning,
        }
    }

    /// The same with arguments fitted otherwise.
    pub(super) fn fit(mut self, fit: Fit) -> Self {
        self.fit = fit;
        self
    }

    /// The same with a last parameter that repeats.
    pub(super) fn variadic(mut self) -> Self {
        self.variadic = true;
        self
    }

    /// The same as one that yields rows.
    pub(super) fn set(mut self) -> Self {
        self.returns_set = true;
        self
    }

    /// The parameters for so many arguments; `None` if it does not take as many.
    pub(super) fn expanded(&self, count: usize) -> Option<Vec<&Param>> {
        if !self.variadic {
            return (self.params.len() == count).then(|| self.params.iter().collect());
        }
        let (last, fixed) = self.params.split_last()?;
        let more = count.checked_sub(fixed.len())?;
        Some(
            fixed
                .iter()
                .chain(std::iter::repeat_n(last, more))
                .collect(),
        )
    }

    /// The types that arguments are cast to.
    pub(super) fn arguments(&self, params: &[&Param], given: &[Given]) -> Option<Vec<SqlType>> {
        let solved = solve(params, given)?;
        let cast = || -> Vec<SqlType> {
            params
                .iter()
                .zip_eq(given)
                .map(|(param, given)| fitted(param, given, &solved))
                .collect()
        };
        let as_given = || -> Vec<SqlType> {
            cast()
                .into_iter()
                .zip_eq(given)
                .map(|(cast, given)| given.known().cloned().unwrap_or(cast))
                .collect()
        };
        Some(match &self.fit {
            Fit::Cast | Fit::Blind => cast(),
            Fit::AsGiven => as_given(),
            Fit::Compare => {
                let are_numbers = params
                    .iter()
                    .all(|param| param.category() == Some(TypeCategory::Numeric));
                if !are_numbers {
                    return Some(cast());
                }
                let types = as_given();
                let alike = types.windows(2).all(|pair| pair.first() == pair.last());
                if alike || !params.iter().any(|param| param.is_float()) {
                    types
                } else {
                    vec![SqlType::Float8; types.len()]
                }
            }
            Fit::Padded => given
                .iter()
                .map(|given| match given.known() {
                    Some(padded @ SqlType::Char(_)) => padded.clone(),
                    _ => SqlType::Char(0),
                })
                .collect(),
            Fit::To(types) => types.clone(),
        })
    }
}

/// What the polymorphic parameters of a call stand for.
#[derive(Debug)]
struct Solved {
    /// `anyelement`; `None` if nothing says what it is.
    element: Option<SqlType>,
    /// `anycompatible`
    compatible: Option<SqlType>,
}

/// Whether arguments can be given for parameters, without being asked to.
pub(super) fn accepts(params: &[&Param], given: &[Given]) -> bool {
    let each = params
        .iter()
        .zip_eq(given)
        .all(|(param, given)| match (param, given.known()) {
            (Param::Of(own), Some(from)) => is_implicit(from, own),
            _ => true,
        });
    each && solve(params, given).is_some()
}

/// What polymorphic parameters stand for; `None` if the arguments contradict each other.
fn solve(params: &[&Param], given: &[Given]) -> Option<Solved> {
    let mut elements: Vec<Given> = Vec::new();
    let mut compatible = Vec::new();
    let (mut arrays, mut known_arrays) = (false, false);
    for (param, given) in params.iter().zip_eq(given) {
        match (param, given.known()) {
            (Param::Element, Some(own)) => elements.push(Given::Of(own.clone())),
            (Param::NonArray, Some(own)) if own.element().is_some() => return None,
            (Param::NonArray, Some(own)) => elements.push(Given::Of(own.clone())),
            (Param::Array, Some(array)) => elements.push(Given::Of(array.element()?)),
            (Param::Element | Param::NonArray | Param::Array, None) => elements.push(given.clone()),
            (Param::Compatible, _) => compatible.push(given.clone()),
            (Param::CompatibleArray, Some(array)) => {
                (arrays, known_arrays) = (true, true);
                compatible.push(Given::Of(array.element()?));
            }
            (Param::CompatibleArray, None) => {
                arrays = true;
                compatible.push(given.clone());
            }
            _ => {}
        }
    }
    let mut known = elements
        .iter()
        .filter_map(Given::known)
        .map(SqlType::without_modifier);
    let element = match known.next() {
        None => None,
        Some(first) => {
            if known.any(|other| other != first) {
                return None;
            }
            Some(common_type(&elements).ok()?)
        }
    };
    let compatible = if compatible.is_empty() {
        None
    } else {
        let common = common_type(&compatible).ok()?;
        // There are no arrays of arrays.
        if arrays && !known_arrays && common.element().is_some() {
            return None;
        }
        Some(common)
    };
    Some(Solved {
        element,
        compatible,
    })
}

/// Whether a polymorphic parameter is left of which nothing is known.
pub(super) fn is_indeterminate(params: &[&Param], given: &[Given]) -> bool {
    let mut of_element = params
        .iter()
        .zip_eq(given)
        .filter(|(param, _)| param.is_element_like())
        .peekable();
    of_element.peek().is_some() && of_element.all(|(_, given)| given.known().is_none())
}

fn array_of(item: Option<&SqlType>) -> SqlType {
    SqlType::Array(Box::new(item.cloned().unwrap_or(SqlType::Text)))
}

/// What an argument is cast to.
fn fitted(param: &Param, given: &Given, solved: &Solved) -> SqlType {
    let unknown = SqlType::Text;
    match (param, given.known()) {
        (Param::Of(own), Some(from)) => beside(own, from),
        (Param::Of(own), None) => own.clone(),
        (Param::Any, known) => known.cloned().unwrap_or(unknown),
        (Param::Element | Param::NonArray, _) => solved.element.clone().unwrap_or(unknown),
        (Param::Compatible, _) => solved.compatible.clone().unwrap_or(unknown),
        // Vectors are arrays of their own.
        (Param::Array, Some(array)) if array.is_vector() => array.clone(),
        (Param::Array, _) => array_of(solved.element.as_ref()),
        (Param::CompatibleArray, _) => array_of(solved.compatible.as_ref()),
    }
}

/// What an argument of type `from` becomes for a parameter of type `own`.
fn beside(own: &SqlType, from: &SqlType) -> SqlType {
    match (own, from) {
        (own, from) if from.without_modifier() == *own => from.clone(),
        // Characters are characters, but for the padding.
        (SqlType::Text, SqlType::VarChar(_) | SqlType::Name | SqlType::QuotedChar) => from.clone(),
        // No more digits after the point than it has.
        (SqlType::Numeric(_), from) => match decimal_shape(from) {
            Some((digits, 0)) => u8::try_from(digits).map_or(SqlType::Numeric(None), |digits| {
                SqlType::Numeric(Some((digits, 0)))
            }),
            _ => SqlType::Numeric(None),
        },
        (own, _) => own.clone(),
    }
}
