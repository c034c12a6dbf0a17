# syntax=docker/dockerfile:1
# check=skip=JSONArgsRecommended

ARG BASE=busybox REGISTRY
# build compiles it
FROM --platform=$BUILDPLATFORM ${REGISTRY}/${BASE}:1 AS Build
ARG VERSION=1 DEBUG
ENV A="one two" B=2
ENV C three four
LABEL org.example.title="A title" org.example.empty=
MAINTAINER Ann Author <ann@example.org>
SHELL ["/bin/sh", "-ec"]
WORKDIR /src dir
RUN --mount=type=cache,target=/root/.cache --mount=type=bind,from=tools,target=/tools \
    --network=none --security=sandbox --device=vendor.com/gpu=0 \
    make && \
    # a comment in between
    make install
RUN ["make", "test"]
RUN <<EOT
#!/bin/sh
echo $VERSION
EOT
RUN <<-"ONE" 3<<TWO cat
	first
	ONE
second
TWO
copy --from=0 --chown=1:2 --chmod=0644 --link --parents=true --exclude=*.md --exclude='a b' a b /dst/
COPY ["with space", "/dst dir/"]
COPY <<a.txt <<'b.txt' plain /etc/
A=$A
a.txt
B
b.txt
ADD --chown=1 --chmod=u+x --link=false --checksum=sha256:0000000000000000000000000000000000000000000000000000000000000000 --keep-git-dir=true --unpack=false --exclude=x https://example.org/x.tar /x/
EXPOSE 80 53/udp 8000-8010
VOLUME /data /logs
VOLUME ["/more"]
USER nobody:nogroup
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5s --timeout=3s --start-period=1m --start-interval=1s --retries=2 CMD wget -q localhost
HEALTHCHECK NONE
ONBUILD COPY --from=build . /app
ONBUILD RUN <<EOT
echo later
EOT
ENTRYPOINT ["/bin/app"]
CMD run --fast

FROM scratch
COPY --from=build /bin/app /
