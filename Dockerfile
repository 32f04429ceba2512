# Packs the static binary that packaging/dist builds; nothing is compiled or run here.
#   packaging/dist x86_64-unknown-linux-musl
#   docker build --build-arg TARGET=x86_64-unknown-linux-musl -t iofog-connector .
#   docker run -v /srv/iofog-connector:/data -p 443:443 -p 30000-30099:30000-30099 iofog-connector
# The volume holds iofog-connector.conf, certificate and mappings, and belongs to user 65532.
FROM scratch

ARG TARGET=x86_64-unknown-linux-musl
COPY --chmod=755 target/${TARGET}/dist/iofog-connector /usr/bin/iofog-connector
COPY LICENSE packaging/licences/Apache-2.0 target/${TARGET}/dist/copyright /usr/share/doc/iofog-connector/

# A number, because there is no /etc/passwd. Docker lets everyone in a container bind low ports.
USER 65532:65532
VOLUME /data
ENTRYPOINT ["/usr/bin/iofog-connector"]
CMD ["start", "--config", "/data/iofog-connector.conf"]
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s CMD ["/usr/bin/iofog-connector", "status", "--config", "/data/iofog-connector.conf"]
