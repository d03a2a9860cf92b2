//! Avro schemas: their JSON to nodes that refer to each other by number.
//!
//! Owns names, namespaces, references between schemas, and what logical types and `connect.name` mean. Must not know columns.
//! Called by the rest of [`crate::avro`].
//!
//! Invariants. Every [`NodeId`] in a schema is one of its own. A recursive schema has a cycle of nodes: whoever walks one bounds the depth.

use hashbrown::HashMap;
use serde_json::{Map, Value};

use crate::error::Error;
use crate::semantic::{Semantic, TimeUnit};

/// Nodes of a schema. Registries take schemas of a megabyte.
const NODES_MAX: usize = 100_000;

/// A node of a schema, by its number.
pub(crate) type NodeId = usize;

/// A whole schema.
#[derive(Clone, Debug)]
pub(crate) struct Schema {
    nodes: Vec<Node>,
    root: NodeId,
}

/// A type.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) kind: Kind,
    pub(crate) semantic: Semantic,
    /// The full name of a named type.
    pub(crate) name: Option<String>,
    /// Full names it had.
    pub(crate) aliases: Vec<String>,
}

/// What a type is on the wire.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Kind {
    Null,
    Boolean,
    Int,
    Long,
    Float,
    Double,
    Bytes,
    String,
    Fixed(usize),
    Enum {
        symbols: Vec<String>,
        default: Option<String>,
    },
    Array(NodeId),
    Map(NodeId),
    Union(Vec<NodeId>),
    Record(Vec<Field>),
}

/// A field of a record.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Field {
    pub(crate) name: String,
    pub(crate) aliases: Vec<String>,
    pub(crate) node: NodeId,
    pub(crate) default: Option<Value>,
}

impl Schema {
    /// Reads a schema. `references` are the schemas whose names it uses, each after those that it uses itself.
    pub(crate) fn parse(json: &str, references: &[String]) -> Result<Self, Error> {
        let mut parser = Parser::default();
        for reference in references {
            parser.root(reference)?;
        }
        let root = parser.root(json)?;
        Ok(Self {
            nodes: parser.nodes,
            root,
        })
    }

    pub(crate) const fn root(&self) -> NodeId {
        self.root
    }

    /// A node of this schema.
    pub(crate) fn node(&self, id: NodeId) -> &Node {
        self.nodes
            .get(id)
            .expect("nodes refer to nodes of their own schema: made by Parser")
    }

    /// The branches of a union; a type that is none is its only branch.
    pub(crate) fn branches(&self, id: NodeId) -> Vec<NodeId> {
        match &self.node(id).kind {
            Kind::Union(branches) => branches.clone(),
            _ => vec![id],
        }
    }

    pub(crate) fn is_null(&self, id: NodeId) -> bool {
        self.node(id).kind == Kind::Null
    }

    /// The one branch that is not null, if there is one only, and whether there is null as well.
    pub(crate) fn nullable(&self, id: NodeId) -> Option<(NodeId, bool)> {
        let branches = self.branches(id);
        let mut others = branches.iter().filter(|branch| !self.is_null(**branch));
        let only = *others.next()?;
        others
            .next()
            .is_none()
            .then(|| (only, branches.iter().any(|branch| self.is_null(*branch))))
    }

    /// The fields of a record.
    pub(crate) fn fields(&self, id: NodeId) -> Option<&[Field]> {
        match &self.node(id).kind {
            Kind::Record(fields) => Some(fields),
            _ => None,
        }
    }
}

#[derive(Default)]
struct Parser {
    nodes: Vec<Node>,
    names: HashMap<String, NodeId>,
}

fn invalid(message: impl std::fmt::Display) -> Error {
    Error::definition(format!("invalid Avro schema: {message}"))
}

/// The full name that `name` is in `namespace`.
fn full_name(name: &str, namespace: &str) -> String {
    if name.contains('.') || namespace.is_empty() {
        name.trim_start_matches('.').to_owned()
    } else {
        format!("{namespace}.{name}")
    }
}

fn text<'a>(object: &'a Map<String, Value>, key: &str) -> Option<&'a str> {
    object.get(key).and_then(Value::as_str)
}

fn texts(object: &Map<String, Value>, key: &str) -> Vec<String> {
    let items = object.get(key).and_then(Value::as_array);
    let items = items.into_iter().flatten().filter_map(Value::as_str);
    items.map(str::to_owned).collect()
}

/// A number, or a text of one as Connect writes its parameters.
fn number<T: TryFrom<i64>>(value: Option<&Value>) -> Option<T> {
    let value = value?;
    let number = value
        .as_i64()
        .or_else(|| value.as_str().and_then(|text| text.parse().ok()))?;
    T::try_from(number).ok()
}

impl Parser {
    fn root(&mut self, json: &str) -> Result<NodeId, Error> {
        let trimmed = json.trim_ascii();
        // A bare name of a primitive type is a schema of its own.
        let value: Value = match serde_json::from_str(trimmed) {
            Ok(value) => value,
            Err(_) if trimmed.bytes().all(|byte| byte.is_ascii_alphabetic()) => trimmed.into(),
            Err(error) => return Err(invalid(error)),
        };
        self.value(&value, "")
    }

    fn push(&mut self, kind: Kind, semantic: Semantic) -> Result<NodeId, Error> {
        if self.nodes.len() >= NODES_MAX {
            return Err(invalid("too many types"));
        }
        self.nodes.push(Node {
            kind,
            semantic,
            name: None,
            aliases: Vec::new(),
        });
        Ok(self.nodes.len() - 1)
    }

    fn value(&mut self, value: &Value, namespace: &str) -> Result<NodeId, Error> {
        match value {
            Value::String(name) => self.named(name, Semantic::Plain, namespace),
            Value::Array(branches) => {
                let mut nodes = Vec::with_capacity(branches.len());
                for branch in branches {
                    let node = self.value(branch, namespace)?;
                    if matches!(
                        self.nodes.get(node).map(|node| &node.kind),
                        Some(Kind::Union(_))
                    ) {
                        return Err(invalid("a union directly inside a union"));
                    }
                    nodes.push(node);
                }
                if nodes.is_empty() {
                    return Err(invalid("a union without branches"));
                }
                self.push(Kind::Union(nodes), Semantic::Plain)
            }
            Value::Object(object) => self.object(object, namespace),
            _ => Err(invalid("a type is neither a name, an object nor a union")),
        }
    }

    /// A primitive type, or one that was named before.
    fn named(&mut self, name: &str, semantic: Semantic, namespace: &str) -> Result<NodeId, Error> {
        let kind = match name {
            "null" => Kind::Null,
            "boolean" => Kind::Boolean,
            "int" => Kind::Int,
            "long" => Kind::Long,
            "float" => Kind::Float,
            "double" => Kind::Double,
            "bytes" => Kind::Bytes,
            "string" => Kind::String,
            _ => {
                let found = self.names.get(&full_name(name, namespace));
                return found
                    .or_else(|| self.names.get(name))
                    .copied()
                    .ok_or_else(|| invalid(format!("unknown type \"{name}\"")));
            }
        };
        self.push(kind, semantic)
    }

    fn object(&mut self, object: &Map<String, Value>, namespace: &str) -> Result<NodeId, Error> {
        let Some(kind) = object.get("type") else {
            return Err(invalid("an object without a type"));
        };
        let Some(kind) = kind.as_str() else {
            // {"type": {"type": …}}
            return self.value(kind, namespace);
        };
        let semantic = semantic_of(object);
        let member = |key: &str| {
            let what = format!("{kind} without \"{key}\"");
            object.get(key).ok_or_else(|| invalid(what))
        };
        match kind {
            "array" => {
                let items = self.value(member("items")?, namespace)?;
                self.push(Kind::Array(items), semantic)
            }
            "map" => {
                let values = self.value(member("values")?, namespace)?;
                self.push(Kind::Map(values), semantic)
            }
            "fixed" => {
                let size =
                    number(object.get("size")).ok_or_else(|| invalid("fixed without a size"))?;
                let (node, _) = self.declare(object, namespace, Kind::Fixed(size), semantic)?;
                Ok(node)
            }
            "enum" => {
                let kind = Kind::Enum {
                    symbols: texts(object, "symbols"),
                    default: text(object, "default").map(str::to_owned),
                };
                let (node, _) = self.declare(object, namespace, kind, semantic)?;
                Ok(node)
            }
            "record" | "error" => self.record(object, namespace, semantic),
            name => self.named(name, semantic, namespace),
        }
    }

    /// Makes a node of a named type; returns the namespace inside it as well.
    fn declare(
        &mut self,
        object: &Map<String, Value>,
        namespace: &str,
        kind: Kind,
        semantic: Semantic,
    ) -> Result<(NodeId, String), Error> {
        let simple = text(object, "name").ok_or_else(|| invalid("a named type without a name"))?;
        let name = full_name(simple, text(object, "namespace").unwrap_or(namespace));
        let inner = name.rsplit_once('.').map_or("", |(namespace, _)| namespace);
        let inner = inner.to_owned();
        let node = self.push(kind, semantic)?;
        if self.names.insert(name.clone(), node).is_some() {
            return Err(invalid(format!("type \"{name}\" is defined twice")));
        }
        let aliases = texts(object, "aliases");
        if let Some(made) = self.nodes.get_mut(node) {
            made.aliases = aliases
                .iter()
                .map(|alias| full_name(alias, &inner))
                .collect();
            made.name = Some(name);
        }
        Ok((node, inner))
    }

    fn record(
        &mut self,
        object: &Map<String, Value>,
        namespace: &str,
        semantic: Semantic,
    ) -> Result<NodeId, Error> {
        // Its fields may name it.
        let (node, inner) = self.declare(object, namespace, Kind::Record(Vec::new()), semantic)?;
        let stated = object.get("fields").and_then(Value::as_array);
        let stated = stated.ok_or_else(|| invalid("record without \"fields\""))?;
        let mut fields: Vec<Field> = Vec::with_capacity(stated.len());
        for field in stated {
            let field = field
                .as_object()
                .ok_or_else(|| invalid("a field is no object"))?;
            let name = text(field, "name").ok_or_else(|| invalid("a field without a name"))?;
            let stated_type = field
                .get("type")
                .ok_or_else(|| invalid(format!("field \"{name}\" has no type")))?;
            // Some writers put the logical type beside the name of the type.
            let type_node = match stated_type {
                Value::String(kind) if field.contains_key("logicalType") => {
                    self.named(kind, semantic_of(field), &inner)?
                }
                other => self.value(other, &inner)?,
            };
            if fields.iter().any(|other| other.name == name) {
                return Err(invalid(format!("field \"{name}\" is defined twice")));
            }
            fields.push(Field {
                name: name.to_owned(),
                aliases: texts(field, "aliases"),
                node: type_node,
                default: field.get("default").cloned(),
            });
        }
        if let Some(made) = self.nodes.get_mut(node) {
            made.kind = Kind::Record(fields);
        }
        Ok(node)
    }
}

/// What the attributes of a type mean. Those that do not fit the type are ignored later, as the specification asks.
fn semantic_of(object: &Map<String, Value>) -> Semantic {
    if let Some(logical) = text(object, "logicalType") {
        let found = match logical {
            "decimal" => Semantic::decimal(
                number(object.get("precision")),
                number(object.get("scale")).unwrap_or(0),
            ),
            "date" => Semantic::Days,
            "time-millis" => Semantic::TimeOfDay(TimeUnit::Millis),
            "time-micros" => Semantic::TimeOfDay(TimeUnit::Micros),
            "timestamp-millis" | "local-timestamp-millis" => Semantic::Timestamp(TimeUnit::Millis),
            "timestamp-micros" | "local-timestamp-micros" => Semantic::Timestamp(TimeUnit::Micros),
            "timestamp-nanos" | "local-timestamp-nanos" => Semantic::Timestamp(TimeUnit::Nanos),
            "uuid" => Semantic::Uuid,
            "duration" => Semantic::Duration,
            _ => Semantic::Plain,
        };
        if found != Semantic::Plain {
            return found;
        }
    }
    let Some(name) = text(object, "connect.name") else {
        return Semantic::Plain;
    };
    let parameters = object.get("connect.parameters").and_then(Value::as_object);
    let parameter = |key: &str| parameters.and_then(|parameters| parameters.get(key));
    let scale = number(parameter("scale").or_else(|| object.get("scale")));
    let precision =
        number(parameter("connect.decimal.precision").or_else(|| object.get("precision")));
    Semantic::of_connect_name(name, scale, precision)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_in_their_namespace_and_in_references() {
        let reference =
            r#"{"type":"record","name":"a.Inner","fields":[{"name":"x","type":"int"}]}"#;
        let json = r#"{"type":"record","name":"Outer","namespace":"a","fields":[
            {"name":"one","type":"Inner"},
            {"name":"next","type":["null","Outer"],"default":null},
            {"name":"at","type":{"type":"long","connect.name":"io.debezium.time.MicroTimestamp"}}]}"#;
        let schema = Schema::parse(json, &[reference.to_owned()]).unwrap();
        let fields = schema.fields(schema.root()).unwrap();
        assert_eq!(schema.node(fields[0].node).name.as_deref(), Some("a.Inner"));
        assert_eq!(schema.nullable(fields[1].node), Some((schema.root(), true)));
        let at = schema.node(fields[2].node);
        assert_eq!(at.semantic, Semantic::Timestamp(TimeUnit::Micros));
        Schema::parse(json, &[]).unwrap_err();
    }

    #[test]
    fn what_is_no_schema_is_refused() {
        for json in [
            "",
            "{}",
            "[]",
            "1",
            "\"nothing\"",
            r#"["null",["int"]]"#,
            r#"{"type":"array"}"#,
        ] {
            assert!(Schema::parse(json, &[]).is_err(), "{json}");
        }
        assert!(Schema::parse("string", &[]).is_ok());
    }
}
