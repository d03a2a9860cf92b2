//! Which of several signatures a call means: PostgreSQL's chapters 10.2 and 10.3, `func_select_candidate` of its parser.
//!
//! Must not know what the signatures are of. Nothing here depends on the order in which they are listed.

use flowstone_types::SqlType;
use itertools::Itertools;

use super::Given;
use super::category::{TypeCategory, category};
use super::signature::{Param, Signature, accepts};

/// What was found.
#[derive(Debug)]
pub(super) enum Choice<'a, M> {
    /// The one that is meant.
    One(&'a Signature<M>),
    /// No signature takes the arguments.
    Nothing,
    /// Several do, and none is better.
    Several,
}

/// A signature with one parameter for each argument.
struct Candidate<'a, M> {
    signature: &'a Signature<M>,
    params: Vec<&'a Param>,
}

impl<M> Clone for Candidate<'_, M> {
    fn clone(&self) -> Self {
        Self {
            signature: self.signature,
            params: self.params.clone(),
        }
    }
}

/// Leaves out candidates that are worse than others.
type Rule<'a, M> = fn(Vec<Candidate<'a, M>>, &[Given]) -> Vec<Candidate<'a, M>>;

/// The signature that a call of a function means.
pub(super) fn choose_function<'a, M>(
    signatures: &'a [Signature<M>],
    given: &[Given],
) -> Choice<'a, M> {
    let candidates = of_count(signatures, given.len());
    if let Some(exact) = exact(&candidates, given) {
        return Choice::One(exact);
    }
    best(candidates, given)
}

/// The signature that an operator means. Beside a value of unknown type it is first looked for with both operands of the same type.
pub(super) fn choose_operator<'a, M>(
    signatures: &'a [Signature<M>],
    given: &[Given],
) -> Choice<'a, M> {
    let candidates = of_count(signatures, given.len());
    let same = match given {
        [left, right] => match (left.known(), right.known()) {
            (Some(known), None) | (None, Some(known)) => {
                Some([Given::Of(known.clone()), Given::Of(known.clone())])
            }
            _ => None,
        },
        _ => None,
    };
    let wanted = same.as_ref().map_or(given, |same| same.as_slice());
    if let Some(exact) = exact(&candidates, wanted) {
        return Choice::One(exact);
    }
    best(candidates, given)
}

fn of_count<M>(signatures: &[Signature<M>], count: usize) -> Vec<Candidate<'_, M>> {
    signatures
        .iter()
        .filter_map(|signature| {
            Some(Candidate {
                signature,
                params: signature.expanded(count)?,
            })
        })
        .collect()
}

fn exact<'a, M>(candidates: &[Candidate<'a, M>], given: &[Given]) -> Option<&'a Signature<M>> {
    let found = candidates.iter().find(|candidate| {
        candidate
            .params
            .iter()
            .zip_eq(given)
            .all(|(param, given)| given.known().is_some_and(|known| param.is(known)))
    });
    found.map(|candidate| candidate.signature)
}

/// Narrows the candidates down, rule by rule, until one is left.
fn best<'a, M>(candidates: Vec<Candidate<'a, M>>, given: &[Given]) -> Choice<'a, M> {
    let mut left: Vec<Candidate<'a, M>> = candidates
        .into_iter()
        .filter(|candidate| accepts(&candidate.params, given))
        .collect();
    if left.is_empty() {
        return Choice::Nothing;
    }
    let rules: [Rule<'a, M>; 4] = [
        |candidates, given| most_exact(candidates, given),
        |candidates, given| most_preferred(candidates, given),
        |candidates, given| of_category(candidates, given),
        |candidates, given| as_if_known(candidates, given),
    ];
    for rule in rules {
        if let [one] = left.as_slice() {
            return Choice::One(one.signature);
        }
        left = rule(left, given);
    }
    match left.as_slice() {
        [one] => Choice::One(one.signature),
        _ => Choice::Several,
    }
}

/// Those of which `score` is largest.
fn largest<'a, M>(
    candidates: Vec<Candidate<'a, M>>,
    given: &[Given],
    score: impl Fn(&Param, &SqlType) -> bool,
) -> Vec<Candidate<'a, M>> {
    let count = |candidate: &Candidate<'_, M>| {
        candidate
            .params
            .iter()
            .zip_eq(given)
            .filter(|(param, given)| given.known().is_some_and(|known| score(param, known)))
            .count()
    };
    let most = candidates.iter().map(count).max();
    candidates
        .into_iter()
        .filter(|candidate| Some(count(candidate)) == most)
        .collect()
}

/// Those with the most arguments of exactly the parameter's type.
fn most_exact<'a, M>(candidates: Vec<Candidate<'a, M>>, given: &[Given]) -> Vec<Candidate<'a, M>> {
    largest(candidates, given, Param::is)
}

/// Those with the most arguments of the parameter's type or for which that is the preferred one of their category.
fn most_preferred<'a, M>(
    candidates: Vec<Candidate<'a, M>>,
    given: &[Given],
) -> Vec<Candidate<'a, M>> {
    largest(candidates, given, |param, known| {
        param.is(known) || (param.is_preferred() && param.category() == Some(category(known)))
    })
}

/// Those whose parameters are of the category that unknown arguments have: characters if any candidate takes these, else what all take.
fn of_category<'a, M>(candidates: Vec<Candidate<'a, M>>, given: &[Given]) -> Vec<Candidate<'a, M>> {
    let mut slots = Vec::new();
    for (index, _) in given
        .iter()
        .enumerate()
        .filter(|(_, given)| given.known().is_none())
    {
        let params: Vec<&Param> = candidates
            .iter()
            .filter_map(|candidate| candidate.params.get(index).copied())
            .collect();
        let Some(chosen) = slot_category(&params) else {
            return candidates;
        };
        let has_preferred = params
            .iter()
            .any(|param| param.category() == chosen && param.is_preferred());
        slots.push((index, chosen, has_preferred));
    }
    let kept: Vec<Candidate<'a, M>> = candidates
        .iter()
        .filter(|candidate| {
            slots.iter().all(|(index, chosen, has_preferred)| {
                candidate.params.get(*index).is_some_and(|param| {
                    param.category() == *chosen && (!has_preferred || param.is_preferred())
                })
            })
        })
        .cloned()
        .collect();
    if kept.is_empty() { candidates } else { kept }
}

/// The category of an unknown argument among parameters; `None` if they disagree. Pseudo types are a category.
fn slot_category(params: &[&Param]) -> Option<Option<TypeCategory>> {
    let string = Some(TypeCategory::String);
    if params.iter().any(|param| param.category() == string) {
        return Some(string);
    }
    let first = params.first()?.category();
    params
        .iter()
        .all(|param| param.category() == first)
        .then_some(first)
}

/// If all known arguments are of one type: those that would take the unknown ones as being of it too, if that is one.
fn as_if_known<'a, M>(candidates: Vec<Candidate<'a, M>>, given: &[Given]) -> Vec<Candidate<'a, M>> {
    let mut known = given
        .iter()
        .filter_map(Given::known)
        .map(SqlType::without_modifier);
    let Some(first) = known.next() else {
        return candidates;
    };
    let any_unknown = given.iter().any(|given| given.known().is_none());
    if !any_unknown || known.any(|other| other != first) {
        return candidates;
    }
    let assumed = vec![Given::Of(first); given.len()];
    let kept: Vec<Candidate<'a, M>> = candidates
        .iter()
        .filter(|candidate| accepts(&candidate.params, &assumed))
        .cloned()
        .collect();
    if kept.len() == 1 { kept } else { candidates }
}
