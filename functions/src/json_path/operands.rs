//! What operands of paths are made of while an operator looks at them.
//!
//! Owns how much of them is kept: of containers only that they are some.

use flowstone_types::jsonb::{Jsonb, JsonbBuf, JsonbKind};

use super::decimal::Decimal;
use crate::errors::EvalResult;
use crate::growth::Growth;

/// An operand of a condition.
pub(super) enum Operand {
    Scalar(JsonbBuf),
    Container,
}

impl Operand {
    fn of(value: Jsonb<'_>) -> Self {
        match value.kind() {
            JsonbKind::Array | JsonbKind::Object => Self::Container,
            _ => Self::Scalar(value.to_buf()),
        }
    }

    pub(super) fn scalar(&self) -> Option<Jsonb<'_>> {
        match self {
            Self::Scalar(value) => Some(value.as_jsonb()),
            Self::Container => None,
        }
    }
}

/// Items that are kept.
#[derive(Default)]
pub(super) struct Operands {
    pub(super) all: Vec<Operand>,
    growth: Growth,
}

impl Operands {
    pub(super) fn add(&mut self, value: Jsonb<'_>) -> EvalResult<()> {
        let operand = Operand::of(value);
        let bytes = match &operand {
            Operand::Scalar(value) => value.as_bytes().len(),
            Operand::Container => 0,
        };
        self.growth.add(bytes + size_of::<Operand>())?;
        self.all.push(operand);
        Ok(())
    }
}

/// An operand that must be one number.
#[derive(Default)]
pub(super) struct Single {
    count: usize,
    number: Option<JsonbBuf>,
}

impl Single {
    pub(super) fn add(&mut self, value: Jsonb<'_>) -> EvalResult<()> {
        if self.count == 0 && value.kind() == JsonbKind::Number {
            self.number = Some(value.to_buf());
        }
        self.count += 1;
        Ok(())
    }

    pub(super) fn number(&self) -> Option<&JsonbBuf> {
        self.number.as_ref().filter(|_| self.count == 1)
    }

    pub(super) fn decimal(&self) -> EvalResult<Option<Decimal>> {
        self.number()
            .and_then(|number| number.as_jsonb().as_number())
            .map(Decimal::read)
            .transpose()
    }
}
