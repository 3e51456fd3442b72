//! `multipart/form-data`: the form of pages and of curl's `-F`.

use actix_multipart::Multipart;
use actix_web::{HttpRequest, web};
use bytes::{Bytes, BytesMut};
use fault::Fault;
use futures_util::StreamExt as _;

use crate::body::{self, Share};
use crate::classify::{Wanted, number};
use crate::problem::start_of;
use crate::site::Site;

/// A text field may be this long: a model's name is shorter.
const TEXT: usize = 1 << 10;
/// Fields of a form besides its pictures.
const OTHERS: usize = 48;

/// Reads a form's `image` files (also `images`, `file`), `model` and `top_k`. File names are not used for anything.
///
/// # Errors
/// A fault that names the field, the value and the limit.
pub(crate) async fn read(
    request: &HttpRequest,
    payload: web::Payload,
    site: &web::Data<Site>,
) -> Result<Wanted, Fault> {
    let time = site.process.settings.limits.body_time;
    let read = tokio::time::timeout(time, read_fields(request, payload, site)).await;
    read.map_err(|_| body::slow(time))?
}

async fn read_fields(request: &HttpRequest, payload: web::Payload, site: &web::Data<Site>) -> Result<Wanted, Fault> {
    let limits = &site.process.settings.limits;
    let mut share = Share::none(&site.process);
    let (mut images, mut model, mut top_k) = (Vec::new(), String::new(), None);
    let mut form = Multipart::new(request.headers(), payload);
    let (mut fields, most_fields) = (0, limits.pictures_per_call + OTHERS);
    let mut failed = None;
    while let Some(field) = form.next().await {
        let mut field = field.map_err(|error| body::broken(&error))?;
        fields += 1;
        if fields > most_fields && failed.is_none() {
            failed = Some(Fault::too_large(format!("the form has more than {most_fields} fields")));
        }
        // A longer name is none of ours; it stands in messages.
        let name = start_of(field.name().unwrap_or_default(), 64).to_owned();
        let is_file = matches!(name.as_str(), "image" | "images" | "images[]" | "file");
        let limit = if is_file { limits.picture.as_u64() as usize } else { TEXT };
        let mut content = BytesMut::new();
        while let Some(piece) = field.next().await {
            let piece = piece.map_err(|error| body::broken(&error))?;
            // What is wrong is told after the whole form was read: a client still sending would not see the answer.
            if failed.is_some() {
                continue;
            }
            if content.len() + piece.len() > limit {
                let what = if is_file { "the picture".to_owned() } else { format!("the field {name:?}") };
                failed = Some(body::too_large(content.len() + piece.len(), limit, &what).with_param(name.clone()));
                content = BytesMut::new();
                continue;
            }
            if let Err(fault) = share.grow(piece.len()) {
                failed = Some(fault);
                continue;
            }
            content.extend_from_slice(&piece);
        }
        if failed.is_some() {
            continue;
        }
        let taken = match name.as_str() {
            _ if is_file && images.len() >= limits.pictures_per_call => {
                let limit = limits.pictures_per_call;
                Err(Fault::too_large(format!("more than {limit} pictures in one call")).with_param("images"))
            }
            // A form that was sent without choosing a file has one empty part.
            _ if is_file && content.is_empty() => Ok(()),
            _ if is_file => {
                images.push(Bytes::from(content));
                Ok(())
            }
            "model" => text(&name, &content).map(|text| model = text),
            "top_k" if !content.is_empty() => {
                text(&name, &content).and_then(|text| number("top_k", &text)).map(|count| top_k = Some(count))
            }
            // A field that is not known is harmless: pages may send more than programs.
            _ => Ok(()),
        };
        failed = taken.err();
    }
    if let Some(fault) = failed {
        return Err(fault);
    }
    if images.is_empty() {
        return Err(
            Fault::invalid_input("there is no picture in the form: its field is called `image`").with_param("image")
        );
    }
    Ok(Wanted::from_form(model, images, top_k, share))
}

fn text(name: &str, content: &[u8]) -> Result<String, Fault> {
    let text = std::str::from_utf8(content);
    let text = text.map_err(|_| Fault::invalid_input(format!("the field {name:?} is not UTF-8")))?;
    Ok(text.trim().to_owned())
}
