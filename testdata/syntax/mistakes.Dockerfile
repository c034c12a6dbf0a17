FROM busybox AS one
RUNN make
COPY --form=x a b

RUN a \

    b
COPY --from=one --from=one a b
