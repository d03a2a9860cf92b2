//! Functions of chance, which give another value for every row and every call.
//!
//! They are [`Volatility::Volatile`], and what is maintained cannot call them.

use std::sync::Arc;

use arrow_array::FixedSizeBinaryArray;
use arrow_schema::DataType;
use datafusion::common::Result;
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use crate::growth::allowed;

const NAME: &str = "gen_random_uuid";
const UUID_BYTES: usize = 16;
const UUID_WIDTH: i32 = 16;

/// The functions of this module.
pub(crate) fn functions() -> Vec<ScalarUDF> {
    vec![ScalarUDF::new_from_impl(RandomUuid {
        signature: Signature::nullary(Volatility::Volatile),
    })]
}

/// `gen_random_uuid()`: uuids of version 4.
#[derive(Debug, PartialEq, Eq, Hash)]
struct RandomUuid {
    signature: Signature,
}

impl ScalarUDFImpl for RandomUuid {
    fn name(&self) -> &str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arg_types: &[DataType]) -> Result<DataType> {
        Ok(DataType::FixedSizeBinary(UUID_WIDTH))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        allowed(args.number_rows.saturating_mul(UUID_BYTES))?;
        let uuids = (0..args.number_rows).map(|_| Some(uuid::Uuid::new_v4().into_bytes()));
        let uuids = FixedSizeBinaryArray::try_from_sparse_iter_with_size(uuids, UUID_WIDTH)?;
        Ok(ColumnarValue::Array(Arc::new(uuids)))
    }
}
