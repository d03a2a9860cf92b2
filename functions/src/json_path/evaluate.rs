//! What a path finds in a document.
//!
//! Owns the two modes: a lax path overlooks what is not there, takes arrays for their items and items for arrays; a strict one fails. Called by the functions on paths.
//!
//! A path fails ([`Flow::Failed`]) where PostgreSQL's would and errors are suppressed, which makes conditions unknown; what cannot be suppressed is an error.

use flowstone_types::jsonb::{Jsonb, JsonbBuf, JsonbBuilder, JsonbKind};
use flowstone_types::value::parse_float8;
use flowstone_types::{EvalError, EvalErrorKind, SqlJsonKind, budget};

use super::decimal::Decimal;
use super::operands::{Operands, Single};
use super::{Arithmetic, Kind, Levels, Method, Node, Path, Sign, Step, Subscript};
use crate::errors::{EvalResult, division_by_zero, from_type_error, invalid_parameter};
use crate::pattern::Patterns;

/// Levels of accessors and of the containers that they go through.
const DEPTH_MAX: usize = 2000;
/// Accessors between two looks whether anybody still waits.
const STEPS_PER_CHECK: usize = 1024;
/// What tells the objects of one document from those of another.
const IDS_PER_DOCUMENT: i64 = 10_000_000_000;

/// What a path is asked about.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request<'r> {
    /// The document that is `$`.
    pub(super) document: Jsonb<'r>,
    /// The object whose members are the variables.
    pub(super) variables: Option<Jsonb<'r>>,
    /// Whether the path may fail without an error.
    pub(super) is_silent: bool,
}

/// How a search ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// There is something.
    Some,
    /// There is nothing.
    Nothing,
    /// The path failed silently.
    Failed,
}

/// Whether to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flow {
    Next,
    /// What was looked for is found.
    Stop,
    Failed,
}

/// Who takes what is found.
pub(super) enum Sink<'s> {
    /// Nobody: that there is something suffices.
    Any,
    Each(&'s mut dyn FnMut(Jsonb<'_>) -> EvalResult<()>),
}

impl Sink<'_> {
    fn take(&mut self, value: Jsonb<'_>) -> EvalResult<Flow> {
        match self {
            Self::Any => Ok(Flow::Stop),
            Self::Each(take) => {
                take(value)?;
                Ok(Flow::Next)
            }
        }
    }

    /// Whether the next item suffices, whatever it is.
    const fn is_content_after(&self, steps: &[Step]) -> bool {
        matches!(self, Self::Any) && steps.is_empty()
    }
}

/// What holds at a place of a path.
#[derive(Clone, Copy)]
pub(super) struct Scope<'s> {
    /// `@`
    current: Jsonb<'s>,
    /// The document in which objects are numbered, and its own number.
    base: Jsonb<'s>,
    base_id: i64,
    /// Length of the array whose subscripts are looked at.
    array_len: usize,
    /// Whether items without what is asked for are passed over.
    overlooks: bool,
    /// Whether failures are errors.
    raises: bool,
}

impl Scope<'_> {
    /// The same, where failures are no errors.
    pub(super) const fn silent(self) -> Self {
        Self {
            raises: false,
            ..self
        }
    }
}

fn is_container(value: Jsonb<'_>) -> bool {
    matches!(value.kind(), JsonbKind::Array | JsonbKind::Object)
}

fn made(make: impl FnOnce(&mut JsonbBuilder)) -> EvalResult<JsonbBuf> {
    let mut builder = JsonbBuilder::new();
    make(&mut builder);
    builder.finish().map_err(|error| from_type_error(&error))
}

fn number(text: &str) -> EvalResult<JsonbBuf> {
    made(|builder| {
        builder.number(text);
    })
}

impl Path {
    /// Whether the path finds anything.
    ///
    /// # Errors
    /// Failures, unless the request is silent; variables that are not there; numbers with too many digits.
    pub(super) fn exists(
        &self,
        request: Request<'_>,
        patterns: &mut Patterns,
    ) -> EvalResult<Found> {
        if !self.is_lax {
            // There may be an error behind the first item.
            return self.find(request, patterns, &mut |_| Ok(()));
        }
        let mut evaluator = Evaluator::new(self, request, patterns)?;
        Ok(
            match evaluator.node(&self.root, evaluator.scope(request), &mut Sink::Any)? {
                Flow::Next => Found::Nothing,
                Flow::Stop => Found::Some,
                Flow::Failed => Found::Failed,
            },
        )
    }

    /// Hands everything that the path finds to `take`, in the order of the document, up to where it fails.
    ///
    /// # Errors
    /// As [`Path::exists`], and those of `take`.
    pub(super) fn find(
        &self,
        request: Request<'_>,
        patterns: &mut Patterns,
        take: &mut dyn FnMut(Jsonb<'_>) -> EvalResult<()>,
    ) -> EvalResult<Found> {
        let mut found = Found::Nothing;
        let mut take = |value: Jsonb<'_>| {
            found = Found::Some;
            take(value)
        };
        let mut evaluator = Evaluator::new(self, request, patterns)?;
        let scope = evaluator.scope(request);
        match evaluator.node(&self.root, scope, &mut Sink::Each(&mut take))? {
            Flow::Failed => Ok(Found::Failed),
            Flow::Next | Flow::Stop => Ok(found),
        }
    }
}

pub(super) struct Evaluator<'r> {
    pub(super) is_lax: bool,
    root: Jsonb<'r>,
    variables: Option<Jsonb<'r>>,
    pub(super) patterns: &'r mut Patterns,
    /// The number of the next document that is made.
    next_id: i64,
    depth: usize,
    steps: usize,
}

impl<'r> Evaluator<'r> {
    fn new(path: &Path, request: Request<'r>, patterns: &'r mut Patterns) -> EvalResult<Self> {
        if let Some(variables) = request.variables
            && variables.kind() != JsonbKind::Object
        {
            return Err(invalid_parameter("\"vars\" argument is not an object"));
        }
        Ok(Self {
            is_lax: path.is_lax,
            root: request.document,
            variables: request.variables,
            patterns,
            next_id: 1 + i64::from(request.variables.is_some()),
            depth: 0,
            steps: 0,
        })
    }

    const fn scope<'s>(&self, request: Request<'s>) -> Scope<'s> {
        Scope {
            current: request.document,
            base: request.document,
            base_id: 0,
            array_len: 0,
            overlooks: self.is_lax,
            raises: !request.is_silent,
        }
    }

    fn fail(scope: Scope<'_>, kind: SqlJsonKind, message: impl Into<String>) -> EvalResult<Flow> {
        Self::fail_with(scope, || {
            EvalError::new(EvalErrorKind::SqlJson(kind), message)
        })
    }

    fn fail_with(scope: Scope<'_>, error: impl FnOnce() -> EvalError) -> EvalResult<Flow> {
        if scope.raises {
            Err(error())
        } else {
            Ok(Flow::Failed)
        }
    }

    /// What is not there: passed over or a failure.
    fn lack(scope: Scope<'_>, kind: SqlJsonKind, message: impl Into<String>) -> EvalResult<Flow> {
        if scope.overlooks {
            Ok(Flow::Next)
        } else {
            Self::fail(scope, kind, message)
        }
    }

    /// Hands on what an operand with its accessors is.
    pub(super) fn node(
        &mut self,
        node: &Node,
        scope: Scope<'_>,
        sink: &mut Sink<'_>,
    ) -> EvalResult<Flow> {
        let steps = node.steps.as_slice();
        match &node.kind {
            Kind::Root => {
                let scope = Scope {
                    base: self.root,
                    base_id: 0,
                    ..scope
                };
                self.follow(steps, self.root, scope, sink)
            }
            Kind::Current => self.follow(steps, scope.current, scope, sink),
            Kind::Last => {
                let last = i64::try_from(scope.array_len).unwrap_or(i64::MAX) - 1;
                let last = made(|builder| {
                    builder.i64(last);
                })?;
                self.follow(steps, last.as_jsonb(), scope, sink)
            }
            Kind::Value(value) => self.follow(steps, value.as_jsonb(), scope, sink),
            Kind::Variable(name) => {
                let (Some(variables), Some(value)) = (
                    self.variables,
                    self.variables.and_then(|all| all.get_key(name)),
                ) else {
                    return Err(EvalError::new(
                        EvalErrorKind::UndefinedObject,
                        format!("could not find jsonpath variable \"{name}\""),
                    ));
                };
                let scope = Scope {
                    base: variables,
                    base_id: 1,
                    ..scope
                };
                self.follow(steps, value, scope, sink)
            }
            Kind::Arithmetic(op, left, right) => {
                self.arithmetic(*op, (left, right), steps, scope, sink)
            }
            Kind::Sign(sign, operand) => self.sign(*sign, operand, steps, scope, sink),
            Kind::And(..)
            | Kind::Or(..)
            | Kind::Not(_)
            | Kind::IsUnknown(_)
            | Kind::Exists(_)
            | Kind::Compare(..)
            | Kind::StartsWith(..)
            | Kind::LikeRegex(..) => {
                let truth = self.truth(node, scope)?;
                let value = truth.map_or(Jsonb::null(), Jsonb::boolean);
                self.follow(steps, value, scope, sink)
            }
        }
    }

    /// Follows accessors from a value on.
    fn follow(
        &mut self,
        steps: &[Step],
        value: Jsonb<'_>,
        scope: Scope<'_>,
        sink: &mut Sink<'_>,
    ) -> EvalResult<Flow> {
        match steps.split_first() {
            None => sink.take(value),
            Some((step, rest)) => self.step(step, rest, value, self.is_lax, scope, sink),
        }
    }

    /// Follows one accessor, and those behind it. It is applied to the items of an array if `unwraps`.
    fn step(
        &mut self,
        step: &Step,
        rest: &[Step],
        value: Jsonb<'_>,
        unwraps: bool,
        scope: Scope<'_>,
        sink: &mut Sink<'_>,
    ) -> EvalResult<Flow> {
        self.steps += 1;
        if self.steps.is_multiple_of(STEPS_PER_CHECK) {
            budget::check()?;
        }
        if self.depth >= DEPTH_MAX {
            return Err(EvalError::new(
                EvalErrorKind::TooLarge,
                format!("a jsonpath goes through more than {DEPTH_MAX} levels"),
            ));
        }
        self.depth += 1;
        let flow = self.applied(step, rest, value, unwraps, scope, sink);
        self.depth -= 1;
        flow
    }

    fn applied(
        &mut self,
        step: &Step,
        rest: &[Step],
        value: Jsonb<'_>,
        unwraps: bool,
        scope: Scope<'_>,
        sink: &mut Sink<'_>,
    ) -> EvalResult<Flow> {
        let is_array = value.kind() == JsonbKind::Array;
        let takes_arrays = matches!(
            step,
            Step::Items(_)
                | Step::AnyItem
                | Step::Descendants(_)
                | Step::Method(Method::Type | Method::Size)
        );
        if unwraps && is_array && !takes_arrays {
            for item in value.items() {
                let flow = self.step(step, rest, item, false, scope, sink)?;
                if flow != Flow::Next {
                    return Ok(flow);
                }
            }
            return Ok(Flow::Next);
        }
        match step {
            Step::Member(key) => match (value.kind(), value.get_key(key)) {
                (_, Some(member)) => self.follow(rest, member, scope, sink),
                (JsonbKind::Object, None) => Self::lack(
                    scope,
                    SqlJsonKind::MemberNotFound,
                    format!("JSON object does not contain key \"{key}\""),
                ),
                _ => Self::lack(
                    scope,
                    SqlJsonKind::MemberNotFound,
                    "jsonpath member accessor can only be applied to an object",
                ),
            },
            Step::AnyMember if value.kind() == JsonbKind::Object => {
                self.follow_each(rest, value.entries().map(|(_, member)| member), scope, sink)
            }
            Step::AnyMember => Self::lack(
                scope,
                SqlJsonKind::ObjectNotFound,
                "jsonpath wildcard member accessor can only be applied to an object",
            ),
            Step::AnyItem if is_array => self.follow_each(rest, value.items(), scope, sink),
            Step::AnyItem if self.is_lax => self.follow(rest, value, scope, sink),
            Step::AnyItem => Self::lack(
                scope,
                SqlJsonKind::ArrayNotFound,
                "jsonpath wildcard array accessor can only be applied to an array",
            ),
            Step::Items(subscripts) if is_array || self.is_lax => {
                self.items(subscripts, rest, value, scope, sink)
            }
            Step::Items(_) => Self::lack(
                scope,
                SqlJsonKind::ArrayNotFound,
                "jsonpath array accessor can only be applied to an array",
            ),
            Step::Descendants(levels) => self.descendants(*levels, rest, value, scope, sink),
            Step::Filter(condition) => {
                let inner = Scope {
                    current: value,
                    ..scope
                };
                if self.truth(condition, inner)? == Some(true) {
                    self.follow(rest, value, scope, sink)
                } else {
                    Ok(Flow::Next)
                }
            }
            Step::Method(method) => self.method(*method, rest, value, scope, sink),
        }
    }

    fn follow_each<'v>(
        &mut self,
        steps: &[Step],
        values: impl Iterator<Item = Jsonb<'v>>,
        scope: Scope<'_>,
        sink: &mut Sink<'_>,
    ) -> EvalResult<Flow> {
        for value in values {
            let flow = self.follow(steps, value, scope, sink)?;
            if flow != Flow::Next {
                return Ok(flow);
            }
        }
        Ok(Flow::Next)
    }

    fn items(
        &mut self,
        subscripts: &[Subscript],
        rest: &[Step],
        value: Jsonb<'_>,
        scope: Scope<'_>,
        sink: &mut Sink<'_>,
    ) -> EvalResult<Flow> {
        let is_array = value.kind() == JsonbKind::Array;
        let len = if is_array { value.len() } else { 1 };
        let scope = Scope {
            array_len: len,
            ..scope
        };
        let len = i64::try_from(len).unwrap_or(i64::MAX);
        for subscript in subscripts {
            let Some(from) = self.index(&subscript.from, scope)? else {
                return Ok(Flow::Failed);
            };
            let to = match &subscript.to {
                None => from,
                Some(to) => match self.index(to, scope)? {
                    Some(to) => to,
                    None => return Ok(Flow::Failed),
                },
            };
            if !scope.overlooks && (from < 0 || from > to || to >= len) {
                return Self::fail(
                    scope,
                    SqlJsonKind::Subscript,
                    "jsonpath array subscript is out of bounds",
                );
            }
            for index in from.max(0)..=to.min(len - 1) {
                let item = if is_array {
                    value.get_index(index)
                } else {
                    Some(value)
                };
                let Some(item) = item else { continue };
                let flow = self.follow(rest, item, scope, sink)?;
                if flow != Flow::Next {
                    return Ok(flow);
                }
            }
        }
        Ok(Flow::Next)
    }

    /// The value of a subscript; `None` if it fails.
    fn index(&mut self, node: &Node, scope: Scope<'_>) -> EvalResult<Option<i64>> {
        let mut found = Single::default();
        let flow = self.node(node, scope, &mut Sink::Each(&mut |value| found.add(value)))?;
        if flow == Flow::Failed {
            return Ok(None);
        }
        let wrong =
            |message: &str| Self::fail(scope, SqlJsonKind::Subscript, message).map(|_| None::<i64>);
        let Some(number) = found.number() else {
            return wrong("jsonpath array subscript is not a single numeric value");
        };
        // Digits behind the point are cut off.
        let text = number
            .as_jsonb()
            .as_number()
            .map(|number| number.to_string())
            .unwrap_or_default();
        let whole = text.split('.').next().unwrap_or_default();
        match whole.parse::<i32>() {
            Ok(index) => Ok(Some(i64::from(index))),
            Err(_) => wrong("jsonpath array subscript is out of integer range"),
        }
    }

    fn descendants(
        &mut self,
        levels: Levels,
        rest: &[Step],
        value: Jsonb<'_>,
        scope: Scope<'_>,
        sink: &mut Sink<'_>,
    ) -> EvalResult<Flow> {
        let scope = Scope {
            overlooks: true,
            ..scope
        };
        let mut flow = Flow::Next;
        if levels.first == 0 {
            flow = self.follow(rest, value, scope, sink)?;
        }
        // That it fails for the value itself does not keep it from what is below.
        if flow == Flow::Stop || !is_container(value) {
            return Ok(flow);
        }
        self.below(1, levels, rest, value, scope, sink)
    }

    /// What is below a container, which is at the level above.
    fn below(
        &mut self,
        level: u32,
        levels: Levels,
        rest: &[Step],
        container: Jsonb<'_>,
        scope: Scope<'_>,
        sink: &mut Sink<'_>,
    ) -> EvalResult<Flow> {
        if level > levels.last {
            return Ok(Flow::Next);
        }
        let members = container.entries().map(|(_, member)| member);
        for value in container.items().chain(members) {
            let is_leaf = !is_container(value);
            if level >= levels.first || levels == Levels::LEAVES && is_leaf {
                let flow = self.follow(rest, value, scope, sink)?;
                if flow != Flow::Next {
                    return Ok(flow);
                }
            }
            if level < levels.last && !is_leaf {
                let flow = self.below(level + 1, levels, rest, value, scope, sink)?;
                if flow != Flow::Next {
                    return Ok(flow);
                }
            }
        }
        Ok(Flow::Next)
    }

    fn method(
        &mut self,
        method: Method,
        rest: &[Step],
        value: Jsonb<'_>,
        scope: Scope<'_>,
        sink: &mut Sink<'_>,
    ) -> EvalResult<Flow> {
        match method {
            Method::Type => {
                let name = made(|builder| {
                    builder.string(value.kind().name());
                })?;
                self.follow(rest, name.as_jsonb(), scope, sink)
            }
            Method::Size => {
                let len = match value.kind() {
                    JsonbKind::Array => value.len(),
                    _ if self.is_lax => 1,
                    _ => {
                        return Self::lack(
                            scope,
                            SqlJsonKind::ArrayNotFound,
                            "jsonpath item method .size() can only be applied to an array",
                        );
                    }
                };
                let len = number(&len.to_string())?;
                self.follow(rest, len.as_jsonb(), scope, sink)
            }
            Method::Double => self.double(rest, value, scope, sink),
            Method::Ceiling | Method::Floor | Method::Abs => {
                let Some(given) = value.as_number() else {
                    return Self::fail(
                        scope,
                        SqlJsonKind::NonNumeric,
                        format!(
                            "jsonpath item method .{}() can only be applied to a numeric value",
                            method.name()
                        ),
                    );
                };
                let text = if method == Method::Abs {
                    given.to_string().trim_start_matches('-').to_owned()
                } else {
                    let up = method == Method::Ceiling;
                    Decimal::read(given)?.rounded(up)?.to_string()
                };
                let made = number(&text)?;
                self.follow(rest, made.as_jsonb(), scope, sink)
            }
            Method::KeyValue => self.key_value(rest, value, scope, sink),
        }
    }

    fn double(
        &mut self,
        rest: &[Step],
        value: Jsonb<'_>,
        scope: Scope<'_>,
        sink: &mut Sink<'_>,
    ) -> EvalResult<Flow> {
        if let Some(given) = value.as_number() {
            return match parse_float8(&given.to_string()) {
                Ok(_) => self.follow(rest, value, scope, sink),
                Err(_) => Self::fail(
                    scope,
                    SqlJsonKind::NonNumeric,
                    "numeric argument of jsonpath item method .double() is out of range for type double precision",
                ),
            };
        }
        let Some(text) = value.as_str() else {
            return Self::fail(
                scope,
                SqlJsonKind::NonNumeric,
                "jsonpath item method .double() can only be applied to a string or numeric value",
            );
        };
        match parse_float8(text) {
            Ok(double) if double.is_finite() => {
                // As a cast to `numeric` writes it: with the digits that any double keeps.
                let made = number(&format!("{double:.14e}"))?;
                self.follow(rest, made.as_jsonb(), scope, sink)
            }
            _ => Self::fail(
                scope,
                SqlJsonKind::NonNumeric,
                "string argument of jsonpath item method .double() is not a valid representation of a double precision number",
            ),
        }
    }

    fn key_value(
        &mut self,
        rest: &[Step],
        value: Jsonb<'_>,
        scope: Scope<'_>,
        sink: &mut Sink<'_>,
    ) -> EvalResult<Flow> {
        if value.kind() != JsonbKind::Object {
            return Self::fail(
                scope,
                SqlJsonKind::ObjectNotFound,
                "jsonpath item method .keyvalue() can only be applied to an object",
            );
        }
        let offset = value.offset_in(scope.base).unwrap_or(0);
        let id = i64::try_from(offset)
            .unwrap_or(0)
            .saturating_add(scope.base_id.saturating_mul(IDS_PER_DOCUMENT));
        for (key, member) in value.entries() {
            if sink.is_content_after(rest) {
                return Ok(Flow::Stop);
            }
            let object = made(|builder| {
                builder.begin_object();
                builder.key("id").i64(id);
                builder.key("key").string(key);
                builder.key("value").value(member);
                builder.end();
            })?;
            let scope = Scope {
                base: object.as_jsonb(),
                base_id: self.next_id,
                ..scope
            };
            self.next_id = self.next_id.saturating_add(1);
            let flow = self.follow(rest, object.as_jsonb(), scope, sink)?;
            if flow != Flow::Next {
                return Ok(flow);
            }
        }
        Ok(Flow::Next)
    }

    /// Hands on what an operand is, with the items of arrays instead of them in a lax path.
    pub(super) fn unwrapped(
        &mut self,
        node: &Node,
        scope: Scope<'_>,
        take: &mut dyn FnMut(Jsonb<'_>) -> EvalResult<()>,
    ) -> EvalResult<Flow> {
        let is_lax = self.is_lax;
        let mut each = |value: Jsonb<'_>| {
            if is_lax && value.kind() == JsonbKind::Array {
                value.items().try_for_each(&mut *take)
            } else {
                take(value)
            }
        };
        self.node(node, scope, &mut Sink::Each(&mut each))
    }

    fn arithmetic(
        &mut self,
        op: Arithmetic,
        (left, right): (&Node, &Node),
        steps: &[Step],
        scope: Scope<'_>,
        sink: &mut Sink<'_>,
    ) -> EvalResult<Flow> {
        let (mut first, mut second) = (Single::default(), Single::default());
        for (node, single) in [(left, &mut first), (right, &mut second)] {
            let flow = self.unwrapped(node, scope, &mut |value| single.add(value))?;
            if flow == Flow::Failed {
                return Ok(flow);
            }
        }
        let wrong = |side: &str| {
            let symbol = op.symbol();
            Self::fail(
                scope,
                SqlJsonKind::Singleton,
                format!(
                    "{side} operand of jsonpath operator {symbol} is not a single numeric value"
                ),
            )
        };
        let Some(first) = first.decimal()? else {
            return wrong("left");
        };
        let Some(second) = second.decimal()? else {
            return wrong("right");
        };
        match first.apply(op, second)? {
            Some(result) => {
                let result = number(&result.to_string())?;
                self.follow(steps, result.as_jsonb(), scope, sink)
            }
            None => Self::fail_with(scope, division_by_zero),
        }
    }

    fn sign(
        &mut self,
        sign: Sign,
        operand: &Node,
        steps: &[Step],
        scope: Scope<'_>,
        sink: &mut Sink<'_>,
    ) -> EvalResult<Flow> {
        let mut operands = Operands::default();
        let flow = self.unwrapped(operand, scope, &mut |value| operands.add(value))?;
        if flow == Flow::Failed {
            return Ok(flow);
        }
        for operand in &operands.all {
            let Some(given) = operand.scalar().and_then(Jsonb::as_number) else {
                // One that is a number suffices.
                if sink.is_content_after(steps) {
                    continue;
                }
                return Self::fail(
                    scope,
                    SqlJsonKind::NumberNotFound,
                    format!(
                        "operand of unary jsonpath operator {} is not a numeric value",
                        sign.symbol()
                    ),
                );
            };
            let text = given.to_string();
            let text = match (sign, text.strip_prefix('-')) {
                (Sign::Plus, _) => text,
                (Sign::Minus, Some(positive)) => positive.to_owned(),
                (Sign::Minus, None) => format!("-{text}"),
            };
            let made = number(&text)?;
            let flow = self.follow(steps, made.as_jsonb(), scope, sink)?;
            if flow != Flow::Next {
                return Ok(flow);
            }
        }
        Ok(Flow::Next)
    }
}
