//! The lists in which a record stands.

use crate::record::Record;
use crate::store::Filter;

/// One list: the records that have something in common.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Shelf {
    /// All; its rows are the records themselves.
    Everything,
    Model(String),
    Label(String),
    Both {
        model: String,
        label: String,
    },
}

impl Shelf {
    /// Every list in which a record stands.
    pub(super) fn all_of(record: &Record) -> [Self; 4] {
        let (model, label) = (record.model.clone(), record.label().to_owned());
        [Self::Everything, Self::Model(model.clone()), Self::Label(label.clone()), Self::Both { model, label }]
    }

    /// The list that has what is wanted, and nothing else.
    pub(super) fn of_filter(filter: &Filter) -> Self {
        match (filter.model.clone(), filter.label.clone()) {
            (None, None) => Self::Everything,
            (Some(model), None) => Self::Model(model),
            (None, Some(label)) => Self::Label(label),
            (Some(model), Some(label)) => Self::Both { model, label },
        }
    }

    pub(super) fn is_everything(&self) -> bool {
        *self == Self::Everything
    }

    /// As it stands in the tables.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Everything => "all",
            Self::Model(_) => "model",
            Self::Label(_) => "label",
            Self::Both { .. } => "both",
        }
    }

    /// As it stands in the tables. With its length before it, a name cannot be taken for another one and the beginning of a label.
    pub(super) fn value(&self) -> String {
        match self {
            Self::Everything => String::new(),
            Self::Model(name) | Self::Label(name) => name.clone(),
            Self::Both { model, label } => format!("{}:{model}{label}", model.len()),
        }
    }
}
