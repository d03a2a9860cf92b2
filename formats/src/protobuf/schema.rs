//! Protobuf schemas: `.proto` text or compiled descriptors to messages that refer to each other by number.
//!
//! Owns the lookup of messages by name and by the indexes that Confluent's prefix states. Must not know columns.
//! Called by the rest of [`crate::protobuf`].

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use hashbrown::HashMap;
use prost::Message as _;
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorProto,
    FileDescriptorSet,
};
use protox::file::{File, FileResolver, GoogleFileResolver};

use crate::error::Error;

/// The name of the schema itself among its files.
const ROOT: &str = "flowstone_root.proto";
/// Messages nested in each other in a schema.
const NESTING_MAX: usize = 64;
/// `LABEL_REQUIRED` and `LABEL_REPEATED`.
const REQUIRED: i32 = 2;
const REPEATED: i32 = 3;

/// All messages and enums of a schema.
#[derive(Clone, Debug)]
pub(super) struct Catalog {
    messages: Vec<Message>,
    enums: Vec<Enum>,
    /// The messages of the root file, by their indexes in it and in each other.
    by_path: HashMap<Vec<usize>, usize>,
    by_name: HashMap<String, usize>,
}

/// A message type.
#[derive(Clone, Debug)]
pub(super) struct Message {
    /// By their numbers, ascending.
    pub(super) fields: Vec<Field>,
    /// The places of fields in the order of the schema.
    pub(super) order: Vec<usize>,
    /// Whether it is an entry of a map.
    pub(super) is_entry: bool,
}

/// A field.
#[derive(Clone, Debug)]
pub(super) struct Field {
    pub(super) name: String,
    pub(super) number: u32,
    pub(super) kind: Kind,
    pub(super) repeated: bool,
    /// Whether its absence is not the same as zero.
    pub(super) presence: bool,
    /// The group of which one field at most is there.
    pub(super) oneof: Option<i32>,
}

/// What a field holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Double,
    Float,
    Int32,
    Int64,
    UInt32,
    UInt64,
    SInt32,
    SInt64,
    Fixed32,
    Fixed64,
    SFixed32,
    SFixed64,
    Bool,
    String,
    Bytes,
    Enum(usize),
    Message(usize),
    /// Of an old kind that is skipped.
    Group,
}

/// An enum: names by number, the first declared first.
#[derive(Clone, Debug)]
pub(super) struct Enum {
    pub(super) values: Vec<(i32, String)>,
}

/// Files that a schema imports, by name; those of Google come with the compiler.
struct Files {
    files: HashMap<String, String>,
    google: GoogleFileResolver,
}

impl FileResolver for Files {
    fn open_file(&self, name: &str) -> Result<File, protox::Error> {
        match self.files.get(name) {
            // Some registries hand out descriptors instead of text.
            Some(text) => File::from_source(name, text).or_else(|error| {
                let descriptor = BASE64_STANDARD.decode(text.trim_ascii()).ok();
                let mut descriptor = descriptor
                    .and_then(|bytes| FileDescriptorProto::decode(bytes.as_slice()).ok())
                    .ok_or(error)?;
                // What imports it knows it by this name, whatever it was called where it was made.
                descriptor.name = Some(name.to_owned());
                Ok(File::from_file_descriptor_proto(descriptor))
            }),
            None => self.google.open_file(name),
        }
    }
}

impl Catalog {
    /// Compiles `.proto` text; `references` are (name as imported, text).
    pub(super) fn compile(schema: &str, references: &[(String, String)]) -> Result<Self, Error> {
        let mut files: HashMap<String, String> = references.iter().cloned().collect();
        files.insert(ROOT.to_owned(), schema.to_owned());
        let resolver = Files {
            files,
            google: GoogleFileResolver::new(),
        };
        let mut compiler = protox::Compiler::with_file_resolver(resolver);
        compiler.include_imports(true);
        compiler
            .open_file(ROOT)
            .map_err(|error| Error::definition(format!("invalid Protobuf schema: {error}")))?;
        let set = compiler.file_descriptor_set();
        // The root comes last: files are sorted by what they need.
        Self::of(&set)
    }

    /// Reads a `FileDescriptorSet`; its last file is the root.
    pub(super) fn from_descriptors(bytes: &[u8]) -> Result<Self, Error> {
        let set = FileDescriptorSet::decode(bytes)
            .map_err(|error| Error::definition(format!("invalid Protobuf descriptor: {error}")))?;
        Self::of(&set)
    }

    fn of(set: &FileDescriptorSet) -> Result<Self, Error> {
        let mut catalog = Self {
            messages: Vec::new(),
            enums: Vec::new(),
            by_path: HashMap::new(),
            by_name: HashMap::new(),
        };
        let mut found = Found::default();
        for file in &set.file {
            catalog.by_path.clear();
            let package = file.package.as_deref().unwrap_or_default();
            let prefix = if package.is_empty() {
                String::new()
            } else {
                format!(".{package}")
            };
            let is_proto3 = file.syntax.as_deref() == Some("proto3");
            for (index, message) in file.message_type.iter().enumerate() {
                catalog.declare(message, &prefix, &[index], is_proto3, &mut found)?;
            }
            for declared in &file.enum_type {
                catalog.declare_enum(declared, &prefix, &mut found);
            }
        }
        if catalog.by_path.is_empty() {
            return Err(Error::definition("Protobuf schema has no message"));
        }
        catalog.link(&found)?;
        Ok(catalog)
    }

    fn declare<'a>(
        &mut self,
        message: &'a DescriptorProto,
        prefix: &str,
        path: &[usize],
        is_proto3: bool,
        found: &mut Found<'a>,
    ) -> Result<(), Error> {
        if path.len() > NESTING_MAX {
            return Err(Error::definition("Protobuf schema is nested too deep"));
        }
        let name = format!("{prefix}.{}", message.name.as_deref().unwrap_or_default());
        let id = self.messages.len();
        self.messages.push(Message {
            fields: Vec::new(),
            order: Vec::new(),
            is_entry: message
                .options
                .as_ref()
                .and_then(|options| options.map_entry)
                == Some(true),
        });
        self.by_path.insert(path.to_vec(), id);
        self.by_name
            .insert(name.trim_start_matches('.').to_owned(), id);
        found.messages.insert(name.clone(), id);
        found.bodies.push((id, message, is_proto3));
        for (index, nested) in message.nested_type.iter().enumerate() {
            let mut inner = path.to_vec();
            inner.push(index);
            self.declare(nested, &name, &inner, is_proto3, found)?;
        }
        for declared in &message.enum_type {
            self.declare_enum(declared, &name, found);
        }
        Ok(())
    }

    fn declare_enum(
        &mut self,
        declared: &EnumDescriptorProto,
        prefix: &str,
        found: &mut Found<'_>,
    ) {
        let name = format!("{prefix}.{}", declared.name.as_deref().unwrap_or_default());
        found.enums.insert(name, self.enums.len());
        let values = declared.value.iter();
        let values = values.filter_map(|value| Some((value.number?, value.name.clone()?)));
        self.enums.push(Enum {
            values: values.collect(),
        });
    }

    fn link(&mut self, found: &Found<'_>) -> Result<(), Error> {
        for (id, message, is_proto3) in &found.bodies {
            let mut fields = Vec::with_capacity(message.field.len());
            for field in &message.field {
                fields.push(field_of(field, *is_proto3, found)?);
            }
            let mut places: Vec<usize> = (0..fields.len()).collect();
            let number = |place: usize| fields.get(place).map_or(0, |field| field.number);
            places.sort_by_key(|place| number(*place));
            let mut order = vec![0; places.len()];
            for (sorted, stated) in places.iter().enumerate() {
                if let Some(place) = order.get_mut(*stated) {
                    *place = sorted;
                }
            }
            fields.sort_by_key(|field| field.number);
            if let Some(made) = self.messages.get_mut(*id) {
                made.fields = fields;
                made.order = order;
            }
        }
        Ok(())
    }

    /// The message with a full name.
    pub(super) fn by_name(&self, name: &str) -> Option<usize> {
        self.by_name.get(name.trim_start_matches('.')).copied()
    }

    /// The message at the indexes that a prefix states.
    pub(super) fn by_path(&self, path: &[usize]) -> Option<usize> {
        self.by_path.get(path).copied()
    }

    /// The only message of the root file that is not nested, if there is one only.
    pub(super) fn only(&self) -> Option<usize> {
        let mut top = self.by_path.iter().filter(|(path, _)| path.len() == 1);
        let only = top.next().map(|(_, id)| *id);
        if top.next().is_some() { None } else { only }
    }

    pub(super) fn message(&self, id: usize) -> &Message {
        self.messages
            .get(id)
            .expect("fields refer to messages of their own catalog: made by link")
    }

    pub(super) fn enumeration(&self, id: usize) -> &Enum {
        self.enums
            .get(id)
            .expect("fields refer to enums of their own catalog: made by link")
    }
}

/// What was found before fields can be linked.
#[derive(Default)]
struct Found<'a> {
    messages: HashMap<String, usize>,
    enums: HashMap<String, usize>,
    bodies: Vec<(usize, &'a DescriptorProto, bool)>,
}

fn field_of(
    field: &FieldDescriptorProto,
    is_proto3: bool,
    found: &Found<'_>,
) -> Result<Field, Error> {
    let name = field.name.clone().unwrap_or_default();
    let unknown = || {
        Error::definition(format!(
            "field \"{name}\" of the Protobuf schema has no known type"
        ))
    };
    let type_name = field.type_name.as_deref().unwrap_or_default();
    let type_name = if type_name.starts_with('.') {
        type_name.to_owned()
    } else {
        format!(".{type_name}")
    };
    let message = || found.messages.get(&type_name).copied();
    let enumeration = || found.enums.get(&type_name).copied();
    let kind = match field.r#type {
        Some(1) => Kind::Double,
        Some(2) => Kind::Float,
        Some(3) => Kind::Int64,
        Some(4) => Kind::UInt64,
        Some(5) => Kind::Int32,
        Some(6) => Kind::Fixed64,
        Some(7) => Kind::Fixed32,
        Some(8) => Kind::Bool,
        Some(9) => Kind::String,
        Some(10) => Kind::Group,
        Some(11) => Kind::Message(message().ok_or_else(unknown)?),
        Some(12) => Kind::Bytes,
        Some(13) => Kind::UInt32,
        Some(14) => Kind::Enum(enumeration().ok_or_else(unknown)?),
        Some(15) => Kind::SFixed32,
        Some(16) => Kind::SFixed64,
        Some(17) => Kind::SInt32,
        Some(18) => Kind::SInt64,
        _ => message()
            .map(Kind::Message)
            .or_else(|| enumeration().map(Kind::Enum))
            .ok_or_else(unknown)?,
    };
    let number = field.number.and_then(|number| u32::try_from(number).ok());
    let repeated = field.label == Some(REPEATED);
    let is_message = matches!(kind, Kind::Message(_) | Kind::Group);
    let optional = field.oneof_index.is_some() || is_message || !is_proto3;
    Ok(Field {
        number: number.ok_or_else(unknown)?,
        kind,
        repeated,
        presence: !repeated && optional && field.label != Some(REQUIRED),
        oneof: field.oneof_index,
        name,
    })
}
