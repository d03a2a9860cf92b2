//! What this server says about itself: SqlInfo, and the types of ODBC and JDBC.
//!
//! Owns the two tables. They never change while the process runs.

use std::sync::LazyLock;

use arrow_flight::sql::metadata::{
    SqlInfoData, SqlInfoDataBuilder, XdbcTypeInfo, XdbcTypeInfoData, XdbcTypeInfoDataBuilder,
};
use arrow_flight::sql::{
    Nullable, Searchable, SqlInfo, SqlNullOrdering, SqlOuterJoinsSupportLevel,
    SqlSupportedCaseSensitivity, SqlSupportedGroupBy, SqlSupportedTransaction, SqlSupportedUnions,
    SqlTransactionIsolationLevel, SupportedSqlGrammar, XdbcDataType, XdbcDatetimeSubcode,
};
use flowstone_types::SqlType;

use crate::Error;

/// The version of the format that `arrow-flight` speaks.
const ARROW_VERSION: &str = "1.3";

static SQL_INFO: LazyLock<Option<SqlInfoData>> = LazyLock::new(|| sql_info_builder().build().ok());
static XDBC_TYPES: LazyLock<Option<XdbcTypeInfoData>> =
    LazyLock::new(|| xdbc_builder().build().ok());

/// What this server says about itself.
pub(crate) fn sql_info() -> Result<&'static SqlInfoData, Error> {
    SQL_INFO
        .as_ref()
        .ok_or_else(|| Error::Internal("SqlInfo cannot be encoded".to_owned()))
}

/// The types of columns, as ODBC and JDBC classify them.
pub(crate) fn xdbc_types() -> Result<&'static XdbcTypeInfoData, Error> {
    XDBC_TYPES
        .as_ref()
        .ok_or_else(|| Error::Internal("the types cannot be encoded".to_owned()))
}

/// A mask with the bits of these numbers.
fn bits(numbers: impl IntoIterator<Item = i32>) -> i32 {
    numbers
        .into_iter()
        .fold(0, |mask, number| mask | (1 << number))
}

fn sql_info_builder() -> SqlInfoDataBuilder {
    let mut builder = SqlInfoDataBuilder::new();
    builder.append(SqlInfo::FlightSqlServerName, "Flowstone");
    builder.append(SqlInfo::FlightSqlServerVersion, env!("CARGO_PKG_VERSION"));
    builder.append(SqlInfo::FlightSqlServerArrowVersion, ARROW_VERSION);
    builder.append(SqlInfo::FlightSqlServerReadOnly, false);
    builder.append(SqlInfo::FlightSqlServerSql, true);
    builder.append(SqlInfo::FlightSqlServerSubstrait, false);
    builder.append(
        SqlInfo::FlightSqlServerTransaction,
        i32::from(SqlSupportedTransaction::Transaction),
    );
    builder.append(SqlInfo::FlightSqlServerCancel, true);
    builder.append(SqlInfo::FlightSqlServerBulkIngestion, true);
    builder.append(SqlInfo::FlightSqlServerIngestTransactionsSupported, true);
    builder.append(SqlInfo::FlightSqlServerStatementTimeout, 0);
    builder.append(SqlInfo::FlightSqlServerTransactionTimeout, 0);
    builder.append(SqlInfo::SqlDdlCatalog, true);
    builder.append(SqlInfo::SqlDdlSchema, true);
    builder.append(SqlInfo::SqlDdlTable, true);
    builder.append(
        SqlInfo::SqlIdentifierCase,
        i64::from(i32::from(
            SqlSupportedCaseSensitivity::SqlCaseSensitivityLowercase,
        )),
    );
    builder.append(SqlInfo::SqlIdentifierQuoteChar, "\"");
    builder.append(
        SqlInfo::SqlQuotedIdentifierCase,
        i64::from(i32::from(
            SqlSupportedCaseSensitivity::SqlCaseSensitivityUnknown,
        )),
    );
    builder.append(SqlInfo::SqlAllTablesAreSelectable, true);
    builder.append(
        SqlInfo::SqlNullOrdering,
        i64::from(i32::from(SqlNullOrdering::SqlNullsSortedHigh)),
    );
    builder.append(SqlInfo::SqlSearchStringEscape, "\\");
    builder.append(SqlInfo::SqlExtraNameCharacters, "$");
    builder.append(SqlInfo::SqlSupportsColumnAliasing, true);
    builder.append(SqlInfo::SqlNullPlusNullIsNull, true);
    builder.append(SqlInfo::SqlSupportsTableCorrelationNames, true);
    builder.append(SqlInfo::SqlSupportsDifferentTableCorrelationNames, false);
    builder.append(SqlInfo::SqlSupportsExpressionsInOrderBy, true);
    builder.append(SqlInfo::SqlSupportsOrderByUnrelated, true);
    builder.append(
        SqlInfo::SqlSupportedGroupBy,
        bits([
            i32::from(SqlSupportedGroupBy::SqlGroupByUnrelated),
            i32::from(SqlSupportedGroupBy::SqlGroupByBeyondSelect),
        ]),
    );
    builder.append(SqlInfo::SqlSupportsLikeEscapeClause, true);
    builder.append(SqlInfo::SqlSupportsNonNullableColumns, true);
    builder.append(
        SqlInfo::SqlSupportedGrammar,
        bits([
            i32::from(SupportedSqlGrammar::SqlMinimumGrammar),
            i32::from(SupportedSqlGrammar::SqlCoreGrammar),
        ]),
    );
    builder.append(
        SqlInfo::SqlOuterJoinsSupportLevel,
        bits([i32::from(SqlOuterJoinsSupportLevel::SqlFullOuterJoins)]),
    );
    builder.append(SqlInfo::SqlSchemaTerm, "schema");
    builder.append(SqlInfo::SqlProcedureTerm, "procedure");
    builder.append(SqlInfo::SqlCatalogTerm, "database");
    builder.append(SqlInfo::SqlCatalogAtStart, true);
    builder.append(SqlInfo::SqlSelectForUpdateSupported, false);
    builder.append(SqlInfo::SqlStoredProceduresSupported, false);
    builder.append(SqlInfo::SqlCorrelatedSubqueriesSupported, true);
    builder.append(
        SqlInfo::SqlSupportedUnions,
        bits([
            i32::from(SqlSupportedUnions::SqlUnion),
            i32::from(SqlSupportedUnions::SqlUnionAll),
        ]),
    );
    builder.append(
        SqlInfo::SqlDefaultTransactionIsolation,
        i64::from(i32::from(
            SqlTransactionIsolationLevel::SqlTransactionSerializable,
        )),
    );
    builder.append(SqlInfo::SqlTransactionsSupported, true);
    builder.append(
        SqlInfo::SqlSupportedTransactionsIsolationLevels,
        bits([i32::from(
            SqlTransactionIsolationLevel::SqlTransactionSerializable,
        )]),
    );
    builder.append(SqlInfo::SqlDataDefinitionCausesTransactionCommit, false);
    builder.append(SqlInfo::SqlDataDefinitionsInTransactionsIgnored, false);
    builder.append(SqlInfo::SqlBatchUpdatesSupported, true);
    builder.append(SqlInfo::SqlSavepointsSupported, false);
    builder.append(SqlInfo::SqlNamedParametersSupported, false);
    builder.append(SqlInfo::SqlLocatorsUpdateCopy, false);
    builder.append(SqlInfo::SqlStoredFunctionsUsingCallSyntaxSupported, false);
    builder
}

/// How ODBC and JDBC see a type: its class, its size, whether its literals are quoted, the subcode of a date or time.
struct Class {
    data_type: XdbcDataType,
    size: Option<i32>,
    quoted: bool,
    radix: Option<i32>,
    subcode: Option<XdbcDatetimeSubcode>,
}

fn class(sql_type: &SqlType) -> Class {
    use XdbcDataType as Xdbc;
    let plain = |data_type, size| Class {
        data_type,
        size,
        quoted: true,
        radix: None,
        subcode: None,
    };
    let number = |data_type, size, radix| Class {
        data_type,
        size: Some(size),
        quoted: false,
        radix: Some(radix),
        subcode: None,
    };
    let time = |data_type, size, subcode| Class {
        data_type,
        size: Some(size),
        quoted: true,
        radix: None,
        subcode,
    };
    match sql_type {
        SqlType::Bool => Class {
            quoted: false,
            ..plain(Xdbc::XdbcBit, Some(1))
        },
        SqlType::Int2 | SqlType::UInt2 => number(Xdbc::XdbcSmallint, 16, 2),
        SqlType::Int4 | SqlType::UInt4 | SqlType::Oid | SqlType::Reg(_) => {
            number(Xdbc::XdbcInteger, 32, 2)
        }
        SqlType::Int8 | SqlType::UInt8 | SqlType::MzTimestamp => number(Xdbc::XdbcBigint, 64, 2),
        SqlType::Float4 => number(Xdbc::XdbcReal, 24, 2),
        SqlType::Float8 => number(Xdbc::XdbcDouble, 53, 2),
        SqlType::Numeric(_) => number(Xdbc::XdbcNumeric, 38, 10),
        SqlType::Text | SqlType::VarChar(_) | SqlType::Name | SqlType::QuotedChar => {
            plain(Xdbc::XdbcVarchar, None)
        }
        SqlType::Char(_) => plain(Xdbc::XdbcChar, None),
        SqlType::Jsonb => plain(Xdbc::XdbcLongvarchar, None),
        SqlType::Bytea => plain(Xdbc::XdbcVarbinary, None),
        SqlType::Uuid => plain(Xdbc::XdbcBinary, Some(16)),
        SqlType::Date => time(Xdbc::XdbcDate, 10, None),
        SqlType::Time => time(
            Xdbc::XdbcTime,
            15,
            Some(XdbcDatetimeSubcode::XdbcSubcodeTime),
        ),
        SqlType::Timestamp => time(
            Xdbc::XdbcTimestamp,
            26,
            Some(XdbcDatetimeSubcode::XdbcSubcodeTimestamp),
        ),
        SqlType::TimestampTz => time(
            Xdbc::XdbcTimestamp,
            32,
            Some(XdbcDatetimeSubcode::XdbcSubcodeTimestampWithTimezone),
        ),
        SqlType::Interval => plain(Xdbc::XdbcInterval, None),
        SqlType::Array(_) | SqlType::Int2Vector | SqlType::OidVector => {
            plain(Xdbc::XdbcUnknownType, None)
        }
    }
}

fn xdbc_builder() -> XdbcTypeInfoDataBuilder {
    let mut builder = XdbcTypeInfoDataBuilder::new();
    for sql_type in [
        SqlType::Bool,
        SqlType::Int2,
        SqlType::Int4,
        SqlType::Int8,
        SqlType::UInt2,
        SqlType::UInt4,
        SqlType::UInt8,
        SqlType::Float4,
        SqlType::Float8,
        SqlType::Numeric(None),
        SqlType::Text,
        SqlType::VarChar(None),
        SqlType::Bytea,
        SqlType::Jsonb,
        SqlType::Date,
        SqlType::Time,
        SqlType::Timestamp,
        SqlType::TimestampTz,
        SqlType::Interval,
        SqlType::Uuid,
    ] {
        builder.append(type_info(&sql_type));
    }
    builder
}

fn type_info(sql_type: &SqlType) -> XdbcTypeInfo {
    let class = class(sql_type);
    let unsigned = matches!(sql_type, SqlType::UInt2 | SqlType::UInt4 | SqlType::UInt8);
    let is_text = matches!(sql_type, SqlType::Text | SqlType::VarChar(_));
    let is_numeric = matches!(sql_type, SqlType::Numeric(_));
    let quote = class.quoted.then(|| "'".to_owned());
    let parameters = match sql_type {
        SqlType::Numeric(_) => Some(vec!["precision".to_owned(), "scale".to_owned()]),
        SqlType::VarChar(_) => Some(vec!["length".to_owned()]),
        _ => None,
    };
    XdbcTypeInfo {
        type_name: sql_type.to_string(),
        data_type: class.data_type,
        column_size: class.size,
        literal_prefix: quote.clone(),
        literal_suffix: quote,
        create_params: parameters,
        nullable: Nullable::NullabilityNullable,
        case_sensitive: is_text,
        searchable: if is_text {
            Searchable::Full
        } else {
            Searchable::Basic
        },
        unsigned_attribute: class.radix.map(|_| unsigned),
        fixed_prec_scale: false,
        auto_increment: class.radix.map(|_| false),
        local_type_name: Some(sql_type.to_string()),
        minimum_scale: is_numeric.then_some(0),
        maximum_scale: is_numeric.then_some(38),
        sql_data_type: match class.subcode {
            Some(_) => XdbcDataType::XdbcDatetime,
            None => class.data_type,
        },
        datetime_subcode: class.subcode,
        num_prec_radix: class.radix,
        interval_precision: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_can_be_encoded() {
        assert!(sql_info().unwrap().record_batch([]).unwrap().num_rows() > 40);
        assert_eq!(
            sql_info().unwrap().record_batch([0, 8]).unwrap().num_rows(),
            2
        );
        assert_eq!(
            xdbc_types().unwrap().record_batch(None).unwrap().num_rows(),
            20
        );
        let integers = i32::from(XdbcDataType::XdbcInteger);
        assert_eq!(
            xdbc_types()
                .unwrap()
                .record_batch(integers)
                .unwrap()
                .num_rows(),
            2
        );
    }
}
