//! PNG files that carry their generation parameters under the keyword that AUTOMATIC1111's web UI reads.

use std::io::Cursor;

use ::png::{BitDepth, ColorType, Decoder, DecodingError, Encoder, Info};

use crate::{Error, Result};

/// The keyword of the text chunk.
pub const KEYWORD: &str = "parameters";

/// The longest compressed text that is unpacked, in bytes.
const TEXT_LIMIT: usize = 1 << 20;

/// Writes a PNG of 8-bit `rgba` (rows from the top, `width * height * 4` bytes) with `parameters` in a text chunk: tEXt
/// where Latin-1 can hold the text, else iTXt. NUL, which neither can hold, is left out of the text.
///
/// # Errors
/// [`Error::InvalidArgument`] where the size is 0 or is not that of `rgba`.
pub fn encode(rgba: &[u8], width: u32, height: u32, parameters: &str) -> Result<Vec<u8>> {
    let expected = (width as usize)
        .checked_mul(height as usize)
        .and_then(|pixels| pixels.checked_mul(4));
    if rgba.is_empty() || expected != Some(rgba.len()) {
        return Err(Error::InvalidArgument(format!(
            "picture: expected {width}x{height} pixels of 4 bytes, found {} bytes",
            rgba.len()
        )));
    }
    let parameters = parameters.replace('\0', "");
    let failed = |error: ::png::EncodingError| Error::Internal(format!("writing a PNG: {error}"));
    let mut bytes = Vec::new();
    let mut encoder = Encoder::new(&mut bytes, width, height);
    encoder.set_color(ColorType::Rgba);
    encoder.set_depth(BitDepth::Eight);
    if parameters.chars().all(|c| u8::try_from(c).is_ok()) {
        encoder.add_text_chunk(KEYWORD.into(), parameters).map_err(failed)?;
    } else {
        encoder.add_itxt_chunk(KEYWORD.into(), parameters).map_err(failed)?;
    }
    let mut writer = encoder.write_header().map_err(failed)?;
    writer.write_image_data(rgba).map_err(failed)?;
    writer.finish().map_err(failed)?;
    Ok(bytes)
}

/// The generation parameters in a PNG's text chunk (tEXt, iTXt or zTXt, before or after the pixels), or `None` where it
/// has none.
///
/// # Errors
/// [`Error::Corrupt`] where `bytes` are no PNG, or a damaged one.
pub fn read_parameters(bytes: &[u8]) -> Result<Option<String>> {
    let corrupt = |error: DecodingError| Error::Corrupt(format!("expected a PNG: {error}"));
    let mut reader = Decoder::new(Cursor::new(bytes)).read_info().map_err(corrupt)?;
    if let Some(text) = text(reader.info()).map_err(corrupt)? {
        return Ok(Some(text));
    }
    reader.finish().map_err(corrupt)?;
    text(reader.info()).map_err(corrupt)
}

fn text(info: &Info<'_>) -> Result<Option<String>, DecodingError> {
    if let Some(chunk) = info
        .uncompressed_latin1_text
        .iter()
        .find(|chunk| chunk.keyword == KEYWORD)
    {
        return Ok(Some(chunk.text.clone()));
    }
    if let Some(chunk) = info.utf8_text.iter().find(|chunk| chunk.keyword == KEYWORD) {
        let mut chunk = chunk.clone();
        chunk.decompress_text_with_limit(TEXT_LIMIT)?;
        return chunk.get_text().map(Some);
    }
    if let Some(chunk) = info
        .compressed_latin1_text
        .iter()
        .find(|chunk| chunk.keyword == KEYWORD)
    {
        let mut chunk = chunk.clone();
        chunk.decompress_text_with_limit(TEXT_LIMIT)?;
        return chunk.get_text().map(Some);
    }
    Ok(None)
}
