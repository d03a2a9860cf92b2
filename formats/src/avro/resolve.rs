//! The schema that messages were written with against the one they are read with: from both, the program that reads the messages.
//!
//! Owns the resolution of schemas (Avro 1.12, "Schema Resolution"). Must not know messages. Called when a schema is added.
//!
//! A part of the writer's schema that nothing can be made of is no error until a message has it: branches that do not fit may never come.
//! Record names are not compared where only one record can be meant, since connectors change them when tables move.

use flowstone_types::SqlType;
use flowstone_types::jsonb::JsonbBuf;
use flowstone_types::value::{ColumnBuilder, binary_of, text_of};
use hashbrown::HashMap;

use super::default::encode_default;
use super::program::{DocumentField, DocumentOp, Program, RowOp, Scalar, ValueOp};
use super::schema::{Field, Kind, NodeId, Schema};
use super::shape::{Shape, Target};
use crate::error::Error;
use crate::rows::Limits;
use crate::semantic::Semantic;

/// How deep types may be nested.
const DEPTH_MAX: usize = 128;

/// Resolves the schema of messages against the one they are read with.
///
/// # Errors
/// [`Error::Definition`] if no message of the writer's schema could be read.
pub(crate) fn resolve(writer: Schema, reader: &Schema, shape: &Shape) -> Result<Program, Error> {
    let (from, to) = (writer.root(), reader.root());
    resolve_part(writer, from, reader, to, shape)
}

/// As [`resolve`], of a part of each schema.
///
/// # Errors
/// As [`resolve`].
pub(crate) fn resolve_part(
    writer: Schema,
    from: NodeId,
    reader: &Schema,
    to: NodeId,
    shape: &Shape,
) -> Result<Program, Error> {
    let mut compiler = Compiler {
        writer: &writer,
        reader,
        shape,
        documents: Vec::new(),
        known: HashMap::new(),
    };
    let root = compiler.row(from, to, &shape.target, 0)?;
    let documents = compiler.documents;
    if let RowOp::Refuse(reason) = root {
        return Err(Error::Definition(reason));
    }
    Ok(Program {
        writer,
        root,
        documents,
    })
}

struct Compiler<'a> {
    writer: &'a Schema,
    reader: &'a Schema,
    shape: &'a Shape,
    documents: Vec<DocumentOp>,
    /// Documents by the nodes of both schemas, so that recursive ones end.
    known: HashMap<(NodeId, NodeId), usize>,
}

fn kind_name(kind: &Kind) -> &'static str {
    match kind {
        Kind::Null => "null",
        Kind::Boolean => "boolean",
        Kind::Int => "int",
        Kind::Long => "long",
        Kind::Float => "float",
        Kind::Double => "double",
        Kind::Bytes => "bytes",
        Kind::String => "string",
        Kind::Fixed(_) => "fixed",
        Kind::Enum { .. } => "enum",
        Kind::Array(_) => "array",
        Kind::Map(_) => "map",
        Kind::Union(_) => "union",
        Kind::Record(_) => "record",
    }
}

/// How well a type of the writer fits one of the reader: 0 not at all, 3 the same.
fn fit(writer: &Schema, from: NodeId, reader: &Schema, to: NodeId) -> u8 {
    let (from, to) = (writer.node(from), reader.node(to));
    let same_name = || match (&from.name, &to.name) {
        (Some(from), Some(to_name)) => {
            let simple = |name: &str| name.rsplit('.').next().map(str::to_owned);
            from == to_name || to.aliases.contains(from) || simple(from) == simple(to_name)
        }
        _ => true,
    };
    match (&from.kind, &to.kind) {
        (Kind::Record(_), Kind::Record(_)) | (Kind::Enum { .. }, Kind::Enum { .. }) => {
            if same_name() { 3 } else { 1 }
        }
        (Kind::Fixed(from), Kind::Fixed(to)) => {
            if from != to {
                0
            } else if same_name() {
                3
            } else {
                1
            }
        }
        (Kind::Array(_), Kind::Array(_)) | (Kind::Map(_), Kind::Map(_)) => 3,
        (Kind::Int, Kind::Long | Kind::Float | Kind::Double)
        | (Kind::Long, Kind::Float | Kind::Double)
        | (Kind::Float, Kind::Double)
        | (Kind::String, Kind::Bytes)
        | (Kind::Bytes, Kind::String) => 2,
        (Kind::Enum { .. }, Kind::String) => 1,
        (from, to) if from == to => 3,
        _ => 0,
    }
}

impl Compiler<'_> {
    fn does_not_fit(&self, from: NodeId, to: NodeId) -> String {
        format!(
            "the schema of the message has {}, the schema that is read with {}",
            kind_name(&self.writer.node(from).kind),
            kind_name(&self.reader.node(to).kind)
        )
    }

    /// The branch of the reader's type that a type of the writer goes to, and its number.
    fn branch_for(&self, from: NodeId, to: NodeId) -> Option<(usize, NodeId)> {
        let branches = self.reader.branches(to).into_iter().enumerate();
        let rated = branches
            .map(|(index, branch)| (fit(self.writer, from, self.reader, branch), index, branch));
        // The first of those that fit best.
        rated
            .filter(|(fit, ..)| *fit > 0)
            .max_by_key(|(fit, index, _)| (*fit, usize::MAX - index))
            .map(|(_, index, branch)| (index, branch))
    }

    fn row(
        &mut self,
        from: NodeId,
        to: NodeId,
        target: &Target,
        depth: usize,
    ) -> Result<RowOp, Error> {
        if depth > DEPTH_MAX {
            return Err(Error::definition("Avro schema is nested too deep"));
        }
        if *target == Target::Drop {
            return Ok(RowOp::Skip(from));
        }
        if let Kind::Union(branches) = &self.writer.node(from).kind {
            let ops = branches
                .iter()
                .map(|branch| self.row(*branch, to, target, depth + 1));
            return Ok(RowOp::Union(ops.collect::<Result<_, _>>()?));
        }
        let Some((index, branch)) = self.branch_for(from, to) else {
            return Ok(RowOp::Refuse(self.does_not_fit(from, to)));
        };
        if self.reader.is_null(branch) {
            return Ok(RowOp::Nothing);
        }
        Ok(match target {
            Target::Drop => RowOp::Skip(from),
            Target::Column(column) => self.column(from, branch, *column)?,
            Target::Marked { column, present } => RowOp::Sequence(vec![
                self.column(from, branch, *column)?,
                RowOp::Mark(*present),
            ]),
            Target::Branches(places) => match places.get(index).copied().flatten() {
                Some(column) => self.column(from, branch, column)?,
                None => RowOp::Nothing,
            },
            Target::Fields { fields, present } => {
                self.fields(from, branch, fields, *present, depth)?
            }
        })
    }

    fn column(&mut self, from: NodeId, to: NodeId, column: usize) -> Result<RowOp, Error> {
        let sql_type = self
            .shape
            .relation
            .columns
            .get(column)
            .map_or(SqlType::Text, |column| column.sql_type.clone());
        let op = self.value(from, to, &sql_type)?;
        Ok(RowOp::Column { column, op })
    }

    fn fields(
        &mut self,
        from: NodeId,
        to: NodeId,
        targets: &[Target],
        present: Option<usize>,
        depth: usize,
    ) -> Result<RowOp, Error> {
        let (writer, reader) = (self.writer, self.reader);
        let (Some(from_fields), Some(to_fields)) = (writer.fields(from), reader.fields(to)) else {
            return Ok(RowOp::Refuse(self.does_not_fit(from, to)));
        };
        let mut ops = Vec::with_capacity(from_fields.len() + 1);
        let pairs = pair(from_fields, to_fields);
        for (field, place) in from_fields.iter().zip(&pairs) {
            let target = place.and_then(|place| Some((to_fields.get(place)?, targets.get(place)?)));
            ops.push(match target {
                Some((to_field, target)) => {
                    self.row(field.node, to_field.node, target, depth + 1)?
                }
                None => RowOp::Skip(field.node),
            });
        }
        for (place, (field, target)) in to_fields.iter().zip(targets).enumerate() {
            if pairs.contains(&Some(place)) || *target == Target::Drop {
                continue;
            }
            ops.push(self.default_row(field, target)?);
        }
        ops.extend(present.map(RowOp::Mark));
        Ok(RowOp::Sequence(ops))
    }

    /// What takes the place of a field that the writer lacks. In envelopes such a field is simply not there.
    fn default_row(&self, field: &Field, target: &Target) -> Result<RowOp, Error> {
        let Some(default) = &field.default else {
            let name = &field.name;
            return Ok(RowOp::Refuse(format!(
                "the schema of the message lacks field \"{name}\", which has no default"
            )));
        };
        let mut bytes = Vec::new();
        encode_default(self.reader, field.node, default, &mut bytes, 0)?;
        // Read as what it is: a value of the reader's schema. Documents are made now, since the program's are of the writer's.
        let mut own = Compiler {
            writer: self.reader,
            reader: self.reader,
            shape: self.shape,
            documents: Vec::new(),
            known: HashMap::new(),
        };
        let op = own.row(field.node, field.node, target, 0)?;
        if own.documents.is_empty() {
            return Ok(RowOp::Default {
                bytes,
                op: Box::new(op),
            });
        }
        own.default_documents(op, &bytes)
    }

    /// A default that holds documents, as the text of one: documents of defaults are small and few.
    fn default_documents(&mut self, op: RowOp, bytes: &[u8]) -> Result<RowOp, Error> {
        let program = Program {
            writer: self.reader.clone(),
            root: op,
            documents: std::mem::take(&mut self.documents),
        };
        let columns = self.shape.relation.columns.iter();
        let mut columns: Vec<_> = columns
            .map(|column| ColumnBuilder::new(&column.sql_type, 1))
            .collect();
        program
            .run(bytes, Limits::default(), &mut columns)
            .map_err(|fault| Error::Definition(fault.into_reason()))?;
        let mut ops = Vec::new();
        for (column, builder) in columns.into_iter().enumerate() {
            if builder.is_empty() {
                continue;
            }
            let sql_type = builder.sql_type().clone();
            let cell = builder.finish();
            let mut content = Vec::new();
            let is_value = if sql_type == SqlType::Bytea {
                // A column of bytes takes them as they are.
                binary_of(&cell, 0, &sql_type, &mut content)?
            } else {
                let mut text = String::new();
                let is_value = text_of(&cell, 0, &sql_type, &mut text)?;
                content.extend_from_slice(text.as_bytes());
                is_value
            };
            if !is_value {
                continue;
            }
            let mut bytes = Vec::new();
            super::wire::put_bytes(&content, &mut bytes);
            let op = RowOp::Column {
                column,
                op: ValueOp::Scalar(Scalar::Text(Semantic::Plain)),
            };
            ops.push(RowOp::Default {
                bytes,
                op: Box::new(op),
            });
        }
        Ok(RowOp::Sequence(ops))
    }

    /// What a pair of types means: the writer says how it counts, the reader whether that matters.
    fn semantic(&self, from: NodeId, to: NodeId) -> Semantic {
        let (from, to) = (
            self.writer.node(from).semantic,
            self.reader.node(to).semantic,
        );
        match (from, to) {
            (_, Semantic::Plain) => Semantic::Plain,
            (Semantic::Plain, to) => to,
            (from, _) => from,
        }
    }

    /// The symbols of the writer as the reader has them.
    fn symbols(&self, from: NodeId, to: NodeId) -> Vec<Option<String>> {
        let Kind::Enum { symbols, .. } = &self.writer.node(from).kind else {
            return Vec::new();
        };
        let known = |symbol: &String| match &self.reader.node(to).kind {
            Kind::Enum { symbols, default } if !symbols.contains(symbol) => default.clone(),
            _ => Some(symbol.clone()),
        };
        symbols.iter().map(known).collect()
    }

    fn value(&mut self, from: NodeId, to: NodeId, sql_type: &SqlType) -> Result<ValueOp, Error> {
        let writer = self.writer;
        if let Kind::Union(branches) = &writer.node(from).kind {
            let ops = branches
                .iter()
                .map(|branch| self.value(*branch, to, sql_type));
            return Ok(ValueOp::Union(ops.collect::<Result<_, _>>()?));
        }
        let Some((_, to)) = self.branch_for(from, to) else {
            return Ok(ValueOp::Refuse(self.does_not_fit(from, to)));
        };
        let semantic = self.semantic(from, to);
        let is_scalar_text = semantic == Semantic::Json;
        if *sql_type == SqlType::Jsonb && !is_scalar_text && !self.reader.is_null(to) {
            return Ok(ValueOp::Document(self.document(from, to, 0)?));
        }
        if let Some(scalar) = self.scalar(from, to) {
            return Ok(ValueOp::Scalar(scalar));
        }
        let reader = self.reader;
        let kinds = (&writer.node(from).kind, &reader.node(to).kind);
        Ok(match (kinds, sql_type) {
            ((Kind::Array(item), Kind::Array(to_item)), SqlType::Array(element)) => {
                ValueOp::List(Box::new(self.value(*item, *to_item, element)?))
            }
            _ => ValueOp::Refuse(self.does_not_fit(from, to)),
        })
    }

    /// What is read of a type of the writer that is made of no others, or is a decimal with a scale of its own.
    fn scalar(&self, from: NodeId, to: NodeId) -> Option<Scalar> {
        let semantic = self.semantic(from, to);
        Some(match &self.writer.node(from).kind {
            Kind::Null => Scalar::Null,
            Kind::Boolean => Scalar::Boolean,
            Kind::Int => Scalar::Int(semantic),
            Kind::Long => Scalar::Long(semantic),
            Kind::Float => Scalar::Float,
            Kind::Double => Scalar::Double,
            Kind::Bytes => Scalar::Bytes(semantic),
            Kind::String => Scalar::Text(semantic),
            Kind::Fixed(size) => Scalar::Fixed(*size, semantic),
            Kind::Enum { .. } => Scalar::Symbols(self.symbols(from, to)),
            Kind::Record(fields) if semantic == Semantic::VariableDecimal => {
                Scalar::VariableDecimal {
                    scale_first: scale_first(self.writer, fields)?,
                }
            }
            Kind::Array(_) | Kind::Map(_) | Kind::Union(_) | Kind::Record(_) => return None,
        })
    }

    /// The part of a document for a pair of types.
    fn document(&mut self, from: NodeId, to: NodeId, depth: usize) -> Result<usize, Error> {
        if depth > DEPTH_MAX {
            return Err(Error::definition("Avro schema is nested too deep"));
        }
        if let Some(known) = self.known.get(&(from, to)) {
            return Ok(*known);
        }
        let id = self.documents.len();
        self.documents.push(DocumentOp::Scalar(Scalar::Null));
        self.known.insert((from, to), id);
        let op = self.document_op(from, to, depth)?;
        if let Some(place) = self.documents.get_mut(id) {
            *place = op;
        }
        Ok(id)
    }

    fn document_op(&mut self, from: NodeId, to: NodeId, depth: usize) -> Result<DocumentOp, Error> {
        let writer = self.writer;
        if let Kind::Union(branches) = &writer.node(from).kind {
            let ids = branches
                .iter()
                .map(|branch| self.document(*branch, to, depth + 1));
            return Ok(DocumentOp::Union(ids.collect::<Result<_, _>>()?));
        }
        let Some((_, to)) = self.branch_for(from, to) else {
            return Ok(DocumentOp::Refuse(self.does_not_fit(from, to)));
        };
        if let Some(scalar) = self.scalar(from, to) {
            return Ok(DocumentOp::Scalar(scalar));
        }
        let reader = self.reader;
        Ok(match (&writer.node(from).kind, &reader.node(to).kind) {
            (Kind::Array(from), Kind::Array(to)) => {
                DocumentOp::Array(self.document(*from, *to, depth + 1)?)
            }
            (Kind::Map(from), Kind::Map(to)) => {
                DocumentOp::Map(self.document(*from, *to, depth + 1)?)
            }
            (Kind::Record(from_fields), Kind::Record(to_fields))
                if self.semantic(from, to) != Semantic::VariableDecimal =>
            {
                self.document_fields(from_fields, to_fields, depth)?
            }
            _ => DocumentOp::Refuse(self.does_not_fit(from, to)),
        })
    }

    fn document_fields(
        &mut self,
        from: &[Field],
        to: &[Field],
        depth: usize,
    ) -> Result<DocumentOp, Error> {
        let pairs = pair(from, to);
        let mut fields = Vec::with_capacity(from.len());
        for (field, place) in from.iter().zip(&pairs) {
            fields.push(match place.and_then(|place| to.get(place)) {
                Some(to_field) => DocumentField::Read {
                    name: to_field.name.clone(),
                    op: self.document(field.node, to_field.node, depth + 1)?,
                },
                None => DocumentField::Skip(field.node),
            });
        }
        for (place, field) in to.iter().enumerate() {
            if pairs.contains(&Some(place)) {
                continue;
            }
            let Some(default) = &field.default else {
                let name = &field.name;
                return Ok(DocumentOp::Refuse(format!(
                    "the schema of the message lacks field \"{name}\", which has no default"
                )));
            };
            fields.push(DocumentField::Default {
                name: field.name.clone(),
                document: JsonbBuf::from_json(default)?,
            });
        }
        Ok(DocumentOp::Record(fields))
    }
}

/// The order of the fields of a decimal with a scale of its own, if it is one.
fn scale_first(schema: &Schema, fields: &[Field]) -> Option<bool> {
    let is = |field: &Field, name: &str, kind: &Kind| {
        field.name == name && schema.node(field.node).kind == *kind
    };
    match fields {
        [a, b] if is(a, "scale", &Kind::Int) && is(b, "value", &Kind::Bytes) => Some(true),
        [a, b] if is(a, "value", &Kind::Bytes) && is(b, "scale", &Kind::Int) => Some(false),
        _ => None,
    }
}

/// For each field of the writer, the place of the reader's field that it is: by name, else by a name that the reader's field had.
fn pair(from: &[Field], to: &[Field]) -> Vec<Option<usize>> {
    let by_name = |field: &Field| to.iter().position(|other| other.name == field.name);
    let mut pairs: Vec<Option<usize>> = from.iter().map(by_name).collect();
    for (place, field) in to.iter().enumerate() {
        if pairs.contains(&Some(place)) {
            continue;
        }
        let formerly = from
            .iter()
            .position(|other| field.aliases.contains(&other.name));
        if let Some(found) = formerly.and_then(|index| pairs.get_mut(index)) {
            found.get_or_insert(place);
        }
    }
    pairs
}
