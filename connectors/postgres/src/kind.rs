//! The types of columns that the sink can fill.

/// What a column holds. Types that are not here cannot be filled.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Kind {
    Bool,
    Int2,
    Int4,
    Int8,
    Float4,
    Float8,
    /// With the most digits, and those behind the point, if the column says so.
    Numeric {
        limits: Option<(i32, i32)>,
    },
    Text,
    /// With the most characters.
    Varchar(Option<usize>),
    /// With the exact number of characters.
    Char(usize),
    Bytea,
    Uuid,
    Json,
    Jsonb,
    Date,
    /// With the digits of a second; the same for the next two.
    Time(u8),
    Timestamp(u8),
    TimestampTz(u8),
    /// With its labels.
    Enum(Vec<String>),
    Array {
        element: Box<Kind>,
        oid: u32,
    },
}

/// A built-in type by its name in `pg_type` and its modifier, -1 if it has none.
pub(crate) fn built_in(name: &str, modifier: i32) -> Option<Kind> {
    let digits = u8::try_from(modifier).unwrap_or(6).min(6);
    let length = usize::try_from(modifier - 4).ok();
    Some(match name {
        "bool" => Kind::Bool,
        "int2" => Kind::Int2,
        "int4" => Kind::Int4,
        "int8" => Kind::Int8,
        "float4" => Kind::Float4,
        "float8" => Kind::Float8,
        "numeric" if modifier < 4 => Kind::Numeric { limits: None },
        "numeric" => {
            let packed = modifier - 4;
            // Eleven bits with a sign.
            let scale = ((packed & 0x7ff) ^ 1024) - 1024;
            Kind::Numeric { limits: Some(((packed >> 16) & 0xffff, scale)) }
        }
        "text" => Kind::Text,
        "varchar" => Kind::Varchar(length),
        "bpchar" => length.map_or(Kind::Text, Kind::Char),
        "bytea" => Kind::Bytea,
        "uuid" => Kind::Uuid,
        "json" => Kind::Json,
        "jsonb" => Kind::Jsonb,
        "date" => Kind::Date,
        "time" => Kind::Time(digits),
        "timestamp" => Kind::Timestamp(digits),
        "timestamptz" => Kind::TimestampTz(digits),
        _ => return None,
    })
}

impl Kind {
    /// As the server writes it.
    pub fn name(&self) -> String {
        let digits = |digits: u8| if digits == 6 { String::new() } else { format!("({digits})") };
        match self {
            Kind::Bool => "boolean".into(),
            Kind::Int2 => "smallint".into(),
            Kind::Int4 => "integer".into(),
            Kind::Int8 => "bigint".into(),
            Kind::Float4 => "real".into(),
            Kind::Float8 => "double precision".into(),
            Kind::Numeric { limits: None } => "numeric".into(),
            Kind::Numeric { limits: Some((precision, scale)) } => format!("numeric({precision},{scale})"),
            Kind::Text => "text".into(),
            Kind::Varchar(None) => "varchar".into(),
            Kind::Varchar(Some(most)) => format!("varchar({most})"),
            Kind::Char(length) => format!("char({length})"),
            Kind::Bytea => "bytea".into(),
            Kind::Uuid => "uuid".into(),
            Kind::Json => "json".into(),
            Kind::Jsonb => "jsonb".into(),
            Kind::Date => "date".into(),
            Kind::Time(precision) => format!("time{}", digits(*precision)),
            Kind::Timestamp(precision) => format!("timestamp{}", digits(*precision)),
            Kind::TimestampTz(precision) => format!("timestamptz{}", digits(*precision)),
            Kind::Enum(_) => "the enum".into(),
            Kind::Array { element, .. } => format!("{}[]", element.name()),
        }
    }
}
