//! What columns an Avro schema yields, and which part of a value goes into which of them.
//!
//! Owns the names and types of columns. Must not know the schemas that messages were written with. Called when a decoder is made.
//!
//! A record's fields are the columns; any other type is one column. A union with null makes a column nullable; a union of several other branches is a
//! column for each, `f1`, `f2`, …, of which all but one are NULL. Arrays of scalars are SQL arrays; records, maps and arrays of anything else are `jsonb`.

use flowstone_types::SqlType;

use super::schema::{Kind, NodeId, Schema};
use crate::envelope::layout::{ChangeLayout, Note};
use crate::error::Error;
use crate::relation::{Column, Relation};
use crate::semantic::Semantic;

/// The column of a schema that is no record.
const UNNAMED: &str = "?column?";
/// The column of an image that is one document: MongoDB's.
const DOCUMENT: &str = "data";
/// Levels of two types that are compared.
const DEPTH_MAX: usize = 128;

/// Where a value of the reader's schema goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// Nowhere.
    Drop,
    /// Into one column.
    Column(usize),
    /// Into one column, and `true` into another if it is not null.
    Marked { column: usize, present: usize },
    /// By the branch of the union, null having none.
    Branches(Vec<Option<usize>>),
    /// Field by field, and `true` into a column if the record is there.
    Fields {
        fields: Vec<Target>,
        present: Option<usize>,
    },
}

/// The columns of a schema, and where its parts go.
#[derive(Clone, Debug)]
pub(crate) struct Shape {
    /// The columns that are built.
    pub(crate) relation: Relation,
    pub(crate) target: Target,
}

/// The SQL type of a node that is no union with null.
fn sql_type(schema: &Schema, id: NodeId) -> SqlType {
    let node = schema.node(id);
    let plain = match &node.kind {
        Kind::Null => SqlType::Text,
        Kind::Boolean => SqlType::Bool,
        Kind::Int => SqlType::Int4,
        Kind::Long => SqlType::Int8,
        Kind::Float => SqlType::Float4,
        Kind::Double => SqlType::Float8,
        Kind::Bytes | Kind::Fixed(_) => SqlType::Bytea,
        Kind::String | Kind::Enum { .. } => SqlType::Text,
        Kind::Array(items) => array_type(schema, *items),
        Kind::Map(_) | Kind::Union(_) | Kind::Record(_) => SqlType::Jsonb,
    };
    match (&node.kind, node.semantic) {
        // Of these lengths and no others.
        (Kind::Fixed(size), Semantic::Duration) if *size != 12 => plain,
        (Kind::Fixed(size), Semantic::Uuid) if *size != 16 => plain,
        (Kind::Bytes, Semantic::Duration | Semantic::Uuid) => plain,
        (_, semantic) => semantic.sql_type(&plain),
    }
}

fn array_type(schema: &Schema, items: NodeId) -> SqlType {
    let Some((item, _)) = schema.nullable(items) else {
        return SqlType::Jsonb;
    };
    match &schema.node(item).kind {
        Kind::Array(_) | Kind::Map(_) | Kind::Union(_) | Kind::Record(_) | Kind::Null => {
            match schema.node(item).semantic {
                Semantic::VariableDecimal => SqlType::Array(Box::new(sql_type(schema, item))),
                _ => SqlType::Jsonb,
            }
        }
        _ => match sql_type(schema, item) {
            // An array of documents is a document.
            SqlType::Jsonb => SqlType::Jsonb,
            scalar => SqlType::Array(Box::new(scalar)),
        },
    }
}

/// Adds the columns of a value called `name`.
fn add_columns(
    schema: &Schema,
    name: &str,
    id: NodeId,
    columns: &mut Vec<Column>,
) -> Result<Target, Error> {
    if let Some((only, nullable)) = schema.nullable(id) {
        columns.push(Column::new(name, sql_type(schema, only), nullable));
        return Ok(Target::Column(columns.len() - 1));
    }
    let branches = schema.branches(id);
    if branches.iter().all(|branch| schema.is_null(*branch)) {
        return Err(Error::unsupported(format!(
            "column \"{name}\" of the Avro schema can only be null"
        )));
    }
    let mut places = Vec::with_capacity(branches.len());
    let mut number = 0;
    for branch in branches {
        if schema.is_null(branch) {
            places.push(None);
            continue;
        }
        number += 1;
        columns.push(Column::new(
            format!("{name}{number}"),
            sql_type(schema, branch),
            true,
        ));
        places.push(Some(columns.len() - 1));
    }
    Ok(Target::Branches(places))
}

/// The columns of a schema: of its fields, if it is a record.
pub(crate) fn plain(schema: &Schema) -> Result<Shape, Error> {
    let mut columns = Vec::new();
    let target = match schema.fields(schema.root()) {
        Some(fields) => {
            let mut targets = Vec::with_capacity(fields.len());
            for field in fields {
                targets.push(add_columns(schema, &field.name, field.node, &mut columns)?);
            }
            Target::Fields {
                fields: targets,
                present: None,
            }
        }
        None => {
            let name = schema
                .node(schema.root())
                .name
                .as_deref()
                .unwrap_or(UNNAMED);
            let name = name.rsplit('.').next().unwrap_or(name);
            add_columns(schema, name, schema.root(), &mut columns)?
        }
    };
    if columns.is_empty() {
        return Err(Error::unsupported("the Avro schema has no fields"));
    }
    Ok(Shape {
        relation: Relation::new(columns),
        target,
    })
}

/// The layout of an envelope: a record with a field `after` (and `before`, `op`, `source`).
pub(crate) fn envelope(schema: &Schema) -> Result<(ChangeLayout, Shape), Error> {
    let not_one = |why: &str| {
        Error::definition(format!(
            "the Avro schema is not one of an envelope with images of rows: {why}"
        ))
    };
    let fields = schema
        .fields(schema.root())
        .ok_or_else(|| not_one("it is no record"))?;
    let after = fields
        .iter()
        .find(|field| field.name == "after")
        .ok_or_else(|| not_one("it has no field \"after\""))?;
    let (image, _) = schema
        .nullable(after.node)
        .ok_or_else(|| not_one("field \"after\" is a union of several types"))?;
    let (row, image_target) = image_of(schema, image)?;
    let layout = ChangeLayout::new(row);
    let mut targets = Vec::with_capacity(fields.len());
    for field in fields {
        targets.push(match field.name.as_str() {
            "after" => moved(
                &image_target,
                layout.after(0),
                layout.note(Note::AfterPresent),
            ),
            "before" => {
                // The same type as a rule; CockroachDB's has another name. One that lacks a column says too little.
                let old = schema.nullable(field.node);
                match old.and_then(|(node, _)| as_before(schema, image, node, &image_target)) {
                    Some(target) => {
                        moved(&target, layout.before(0), layout.note(Note::BeforePresent))
                    }
                    None => Target::Drop,
                }
            }
            "op" => note(schema, field.node, &layout, Note::Op),
            "resolved" => note(schema, field.node, &layout, Note::Resolved),
            "source" => source(schema, field.node, &layout),
            _ => Target::Drop,
        });
    }
    let shape = Shape {
        relation: layout.physical(),
        target: Target::Fields {
            fields: targets,
            present: None,
        },
    };
    Ok((layout, shape))
}

/// The parts of a schema of updates with times and of progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct UpdateNodes {
    /// Which branch of the union is the array of updates, and what each of them is.
    pub(crate) updates: usize,
    pub(crate) update: NodeId,
    /// Which branch is a statement of progress, and what that is.
    pub(crate) progress: usize,
    pub(crate) statement: NodeId,
}

/// Finds the parts of a union of an array of updates, which are records of `data`, `time` and `diff`, and of a record of progress with `lower`, `upper` and
/// `counts`.
pub(crate) fn update_nodes(schema: &Schema) -> Result<UpdateNodes, Error> {
    let not_one = |why: String| {
        Error::definition(format!(
            "the Avro schema is not one of updates and progress: {why}"
        ))
    };
    if !matches!(schema.node(schema.root()).kind, Kind::Union(_)) {
        return Err(not_one("it is no union".to_owned()));
    }
    let (mut updates, mut progress) = (None, None);
    for (index, branch) in schema.branches(schema.root()).into_iter().enumerate() {
        match &schema.node(branch).kind {
            Kind::Array(item) => {
                updates.get_or_insert((index, *item));
            }
            Kind::Record(_) => {
                progress.get_or_insert((index, branch));
            }
            _ => {}
        }
    }
    let (updates, update) =
        updates.ok_or_else(|| not_one("no branch is an array of updates".to_owned()))?;
    let (progress, statement) =
        progress.ok_or_else(|| not_one("no branch is a record of progress".to_owned()))?;
    let field = |record: NodeId, of: &str, name: &str| {
        let fields = schema.fields(record).unwrap_or_default();
        let found = fields.iter().find(|field| field.name == name);
        found
            .map(|field| field.node)
            .ok_or_else(|| not_one(format!("{of} has no field \"{name}\"")))
    };
    let long = |node: NodeId, of: &str, name: &str| {
        if is_long(schema, node) {
            Ok(())
        } else {
            Err(not_one(format!("field \"{name}\" of {of} is no long")))
        }
    };
    let items = |node: NodeId, name: &str| match &schema.node(node).kind {
        Kind::Array(item) => Ok(*item),
        _ => Err(not_one(format!("field \"{name}\" of progress is no array"))),
    };
    if schema.fields(field(update, "an update", "data")?).is_none() {
        return Err(not_one(
            "field \"data\" of an update is no record".to_owned(),
        ));
    }
    for name in ["time", "diff"] {
        long(field(update, "an update", name)?, "an update", name)?;
    }
    for name in ["lower", "upper"] {
        let item = items(field(statement, "progress", name)?, name)?;
        long(item, "progress", name)?;
    }
    let count = items(field(statement, "progress", "counts")?, "counts")?;
    for name in ["time", "count"] {
        long(field(count, "a count", name)?, "a count", name)?;
    }
    Ok(UpdateNodes {
        updates,
        update,
        progress,
        statement,
    })
}

fn is_long(schema: &Schema, id: NodeId) -> bool {
    let node = schema.node(id);
    node.kind == Kind::Long && node.semantic == Semantic::Plain
}

/// The columns of the rows that updates have, and those of an update, which has its time and its weight in two more.
pub(crate) fn updates(schema: &Schema) -> Result<(Relation, Shape), Error> {
    let nodes = update_nodes(schema)?;
    let fields = schema.fields(nodes.update).unwrap_or_default();
    let mut columns = Vec::new();
    let mut parts = Vec::new();
    let data = fields.iter().find(|field| field.name == "data");
    let of_data = data.and_then(|data| schema.fields(data.node));
    for field in of_data.unwrap_or_default() {
        parts.push(add_columns(schema, &field.name, field.node, &mut columns)?);
    }
    if columns.is_empty() {
        return Err(Error::unsupported("the Avro schema has no fields"));
    }
    let row = Relation::new(columns.clone());
    let time = columns.len();
    columns.push(Column::new("time", SqlType::Int8, false));
    columns.push(Column::new("diff", SqlType::Int8, false));
    let targets = fields.iter().map(|field| match field.name.as_str() {
        "data" => Target::Fields {
            fields: parts.clone(),
            present: None,
        },
        "time" => Target::Column(time),
        "diff" => Target::Column(time + 1),
        _ => Target::Drop,
    });
    let target = Target::Fields {
        fields: targets.collect(),
        present: None,
    };
    let shape = Shape {
        relation: Relation::new(columns),
        target,
    };
    Ok((row, shape))
}

/// The columns of an image, and where its parts go if they start at column 0.
fn image_of(schema: &Schema, image: NodeId) -> Result<(Relation, Target), Error> {
    let mut columns = Vec::new();
    if let Some(fields) = schema.fields(image) {
        let mut targets = Vec::with_capacity(fields.len());
        for field in fields {
            targets.push(add_columns(schema, &field.name, field.node, &mut columns)?);
        }
        let target = Target::Fields {
            fields: targets,
            present: None,
        };
        return Ok((Relation::new(columns), target));
    }
    let column = Column::new(DOCUMENT, sql_type(schema, image), false);
    Ok((Relation::new(vec![column]), Target::Column(0)))
}

/// The target of the image before a change, if it has all that the image after it has: that one's type is `image`, and its parts go to `target`.
fn as_before(schema: &Schema, image: NodeId, node: NodeId, target: &Target) -> Option<Target> {
    let mut likeness = Likeness {
        schema,
        seen: Vec::new(),
    };
    let (Some(fields), Some(old), Target::Fields { fields: places, .. }) =
        (schema.fields(image), schema.fields(node), target)
    else {
        return likeness.holds(image, node, 0).then(|| target.clone());
    };
    let mut targets = vec![Target::Drop; old.len()];
    for (field, place) in fields.iter().zip(places) {
        let found = old.iter().position(|other| other.name == field.name)?;
        if !likeness.holds(field.node, old.get(found)?.node, 0) {
            return None;
        }
        *targets.get_mut(found)? = place.clone();
    }
    Some(Target::Fields {
        fields: targets,
        present: None,
    })
}

/// Whether values of two types are the same, whatever the names of the types.
struct Likeness<'a> {
    schema: &'a Schema,
    /// The pairs that are compared, or were: types may hold themselves.
    seen: Vec<(NodeId, NodeId)>,
}

impl Likeness<'_> {
    fn holds(&mut self, left: NodeId, right: NodeId, depth: usize) -> bool {
        if left == right || self.seen.contains(&(left, right)) {
            return true;
        }
        if depth > DEPTH_MAX {
            return false;
        }
        self.seen.push((left, right));
        let schema = self.schema;
        let (here, there) = (schema.node(left), schema.node(right));
        if here.semantic != there.semantic {
            return false;
        }
        let depth = depth + 1;
        match (&here.kind, &there.kind) {
            (Kind::Array(here), Kind::Array(there)) | (Kind::Map(here), Kind::Map(there)) => {
                self.holds(*here, *there, depth)
            }
            (Kind::Union(here), Kind::Union(there)) => {
                let mut pairs = here.iter().zip(there);
                here.len() == there.len()
                    && pairs.all(|(here, there)| self.holds(*here, *there, depth))
            }
            (Kind::Record(here), Kind::Record(there)) => {
                let mut pairs = here.iter().zip(there);
                here.len() == there.len()
                    && pairs.all(|(here, there)| {
                        here.name == there.name && self.holds(here.node, there.node, depth)
                    })
            }
            (Kind::Enum { symbols: here, .. }, Kind::Enum { symbols: there, .. }) => here == there,
            (here, there) => here == there,
        }
    }
}

/// The target of an image whose columns start at `first`.
fn moved(target: &Target, first: usize, present: usize) -> Target {
    match target {
        Target::Fields { fields, .. } => Target::Fields {
            fields: fields.iter().map(|field| shifted(field, first)).collect(),
            present: Some(present),
        },
        Target::Column(column) => Target::Marked {
            column: column + first,
            present,
        },
        other => other.clone(),
    }
}

fn shifted(target: &Target, by: usize) -> Target {
    match target {
        Target::Column(column) => Target::Column(column + by),
        Target::Branches(places) => Target::Branches(
            places
                .iter()
                .map(|place| place.map(|column| column + by))
                .collect(),
        ),
        other => other.clone(),
    }
}

/// The target of a note, if the schema has it as the type that we expect.
fn note(schema: &Schema, id: NodeId, layout: &ChangeLayout, note: Note) -> Target {
    let Some((node, _)) = schema.nullable(id) else {
        return Target::Drop;
    };
    let fits = match (sql_type(schema, node), note.sql_type()) {
        (SqlType::Int4 | SqlType::Int8, SqlType::Int8) => true,
        (found, expected) => found == expected,
    };
    if fits {
        Target::Column(layout.note(note))
    } else {
        Target::Drop
    }
}

fn source(schema: &Schema, id: NodeId, layout: &ChangeLayout) -> Target {
    let fields = schema
        .nullable(id)
        .and_then(|(node, _)| schema.fields(node));
    let Some(fields) = fields else {
        return Target::Drop;
    };
    let targets = fields.iter().map(|field| {
        let known = Note::SOURCE
            .into_iter()
            .find(|note| note.name() == field.name);
        known.map_or(Target::Drop, |known| {
            note(schema, field.node, layout, known)
        })
    });
    Target::Fields {
        fields: targets.collect(),
        present: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn columns(json: &str) -> Vec<String> {
        let shape = plain(&Schema::parse(json, &[]).unwrap()).unwrap();
        let columns = shape.relation.columns.iter();
        columns
            .map(|column| {
                let null = if column.nullable { "?" } else { "" };
                format!("{} {}{null}", column.name, column.sql_type)
            })
            .collect()
    }

    #[test]
    fn fields_are_columns_and_unions_are_columns_by_branch() {
        let json = r#"{"type":"record","name":"r","fields":[
            {"name":"id","type":"long"},
            {"name":"n","type":["null","string"]},
            {"name":"u","type":["null","int","string"]},
            {"name":"a","type":{"type":"array","items":["null","int"]}},
            {"name":"aa","type":{"type":"array","items":{"type":"array","items":"int"}}},
            {"name":"m","type":{"type":"map","values":"int"}},
            {"name":"d","type":{"type":"bytes","logicalType":"decimal","precision":12,"scale":2}},
            {"name":"t","type":{"type":"long","logicalType":"timestamp-micros"}},
            {"name":"j","type":{"type":"string","connect.name":"io.debezium.data.Json"}}]}"#;
        assert_eq!(
            columns(json),
            [
                "id bigint",
                "n text?",
                "u1 integer?",
                "u2 text?",
                "a integer[]",
                "aa jsonb",
                "m jsonb",
                "d numeric(12,2)",
                "t timestamp without time zone",
                "j jsonb",
            ]
        );
    }

    #[test]
    fn the_image_before_a_change_may_have_another_name() {
        let present = |before: &str| {
            let json = format!(
                r#"{{"type":"record","name":"envelope","fields":[
                {{"name":"before","type":["null",{{"type":"record","name":"t_before","fields":[{before}]}}]}},
                {{"name":"after","type":["null",{{"type":"record","name":"t","fields":[
                    {{"name":"id","type":["null","long"]}},
                    {{"name":"e","type":{{"type":"enum","name":"e","symbols":["x"]}}}}]}}]}}]}}"#
            );
            let (layout, shape) = envelope(&Schema::parse(&json, &[]).unwrap()).unwrap();
            let Target::Fields { fields, .. } = shape.target else {
                panic!("it is no record");
            };
            match fields.into_iter().next() {
                Some(Target::Fields { fields, present }) => {
                    assert_eq!(present, Some(layout.note(Note::BeforePresent)));
                    Some(fields)
                }
                _ => None,
            }
        };
        let id = r#"{"name":"id","type":["null","long"]}"#;
        let symbols = r#"{"name":"e","type":{"type":"enum","name":"e_before","symbols":["x"]}}"#;
        let (first, second) = (Target::Column(2), Target::Column(3));
        assert_eq!(
            present(&format!("{id},{symbols}")),
            Some(vec![first.clone(), second.clone()])
        );
        let more = r#"{"name":"more","type":"int"}"#;
        assert_eq!(
            present(&format!("{symbols},{more},{id}")),
            Some(vec![second, Target::Drop, first])
        );
        assert_eq!(present(id), None);
        let other = symbols.replace("\"x\"", "\"y\"");
        assert_eq!(present(&format!("{id},{other}")), None);
    }

    #[test]
    fn a_schema_that_is_no_record_is_one_column() {
        assert_eq!(columns("\"string\""), ["?column? text"]);
        assert_eq!(columns(r#"["null","long"]"#), ["?column? bigint?"]);
    }
}
