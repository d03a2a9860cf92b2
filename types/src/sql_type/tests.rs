use super::*;

/// Every type, scalars with and without modifiers, vectors, and arrays of one and two levels.
pub(crate) fn all_types() -> Vec<SqlType> {
    let with_modifiers = [
        SqlType::Numeric(Some(NUMERIC_DEFAULT)),
        SqlType::Numeric(Some((10, 2))),
        SqlType::Numeric(Some((38, 38))),
        SqlType::VarChar(Some(12)),
        SqlType::Char(12),
        SqlType::Char(0),
    ];
    let (vectors, plain): (Vec<_>, Vec<_>) = SqlType::SCALARS
        .iter()
        .cloned()
        .partition(SqlType::is_vector);
    let scalars = [&plain[..], &with_modifiers].concat();
    let array = |element: &SqlType| SqlType::Array(Box::new(element.clone()));
    let arrays: Vec<SqlType> = scalars.iter().map(array).collect();
    let nested: Vec<SqlType> = arrays.iter().map(array).collect();
    [scalars, vectors, arrays, nested].concat()
}

#[test]
fn a_field_gives_back_the_type_it_was_made_of() {
    for sql_type in all_types() {
        let field = sql_type.to_field("c0", true);
        assert_eq!(
            SqlType::from_field(&field),
            Ok(sql_type.clone()),
            "{sql_type}"
        );
        assert_eq!(*field.data_type(), sql_type.to_arrow());
    }
}

#[test]
fn the_name_of_a_type_parses_back_to_it() {
    for sql_type in all_types() {
        assert_eq!(sql_type.to_string().parse(), Ok(sql_type));
    }
    for bad in [
        "",
        "int",
        "numeric(1)",
        "numeric(a,b)",
        "character varying(x)",
        "text(3)",
        "[]",
    ] {
        assert!(bad.parse::<SqlType>().is_err(), "{bad}");
    }
}

#[test]
fn metadata_that_contradicts_the_arrow_type_is_ignored() {
    let tag = |text: &str| HashMap::from([(TYPE_KEY.to_owned(), text.to_owned())]);
    let field = Field::new("c0", DataType::Int64, true).with_metadata(tag("uuid"));
    assert_eq!(SqlType::from_field(&field), Ok(SqlType::Int8));
    let item = Arc::new(Field::new("item", DataType::Utf8, true));
    let list = Field::new("c0", DataType::List(item), true).with_metadata(tag("integer[]"));
    assert_eq!(
        SqlType::from_field(&list),
        Ok(SqlType::Array(Box::new(SqlType::Text)))
    );
}

#[test]
fn every_oid_belongs_to_one_type() {
    let mut seen: HashMap<u32, SqlType> = HashMap::new();
    for sql_type in all_types() {
        let bare = match sql_type {
            SqlType::Numeric(_) => SqlType::Numeric(None),
            SqlType::VarChar(_) => SqlType::VarChar(None),
            SqlType::Char(_) => SqlType::Char(1),
            SqlType::Array(_) => continue,
            other => other,
        };
        for oid in [bare.oid(), bare.array_oid()] {
            if let Some(other) = seen.insert(oid, bare.clone()) {
                assert_eq!(other, bare, "oid {oid}");
            }
        }
    }
}

#[test]
fn modifiers_are_those_of_postgresql() {
    assert_eq!(SqlType::VarChar(Some(10)).type_modifier(), 14);
    assert_eq!(SqlType::Numeric(Some((10, 2))).type_modifier(), 655_366);
    assert_eq!(SqlType::Text.type_modifier(), -1);
}
