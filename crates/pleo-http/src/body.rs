//! Reading a response's body.

use reqwest::Response;

use crate::Error;

/// Appends the response's body to `body`, which then has at most `limit` bytes. After an error,
/// `body` holds the bytes that were read before it.
///
/// # Errors
/// [`Error::BodyTooLarge`] if the body is longer; [`Error::Body`] if the connection fails or the
/// request's timeout ends before the body.
pub async fn read_limited(
    response: &mut Response,
    limit: usize,
    body: &mut Vec<u8>,
) -> Result<(), Error> {
    let failed = |error: reqwest::Error| Error::Body(error.without_url());
    while let Some(chunk) = response.chunk().await.map_err(failed)? {
        let free = limit.saturating_sub(body.len());
        if chunk.len() > free {
            body.extend_from_slice(&chunk[..free]);
            return Err(Error::BodyTooLarge { limit });
        }
        body.extend_from_slice(&chunk);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;
    use crate::Target;

    /// Answers one request with this text, and returns what was read of the body.
    async fn read(answer: &str, limit: usize) -> (Result<(), Error>, Vec<u8>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let target: Target = format!("http://{address}/").parse().unwrap();
        let serve = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.read(&mut [0; 1024]).await.unwrap();
            stream.write_all(answer.as_bytes()).await.unwrap();
        };
        let client = target.client("test").unwrap();
        let (response, ()) = tokio::join!(target.post(&client).send(), serve);
        let mut body = Vec::new();
        let result = read_limited(&mut response.unwrap(), limit, &mut body).await;
        (result, body)
    }

    #[tokio::test]
    async fn reads_body_up_to_limit() {
        let answer = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nbody";
        let (result, body) = read(answer, 4).await;
        assert!(result.is_ok(), "{result:?}");
        assert_eq!(body, b"body");
        let (result, body) = read(answer, 3).await;
        assert!(
            matches!(result, Err(Error::BodyTooLarge { limit: 3 })),
            "{result:?}"
        );
        assert_eq!(body, b"bod");
    }

    #[tokio::test]
    async fn keeps_incomplete_body() {
        let answer = "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nbody";
        let (result, body) = read(answer, 9).await;
        assert!(matches!(result, Err(Error::Body(_))), "{result:?}");
        assert_eq!(body, b"body");
    }
}
