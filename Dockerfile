# POST /predict as a service; see docs/deploy.md. `--build-arg EXTRA=demo` adds the page.
FROM python:3.13-slim
ARG EXTRA=server
COPY . /src
RUN pip install --no-cache-dir "/src[$EXTRA]" && rm -r /src
USER 1000
WORKDIR /tmp
EXPOSE 7860
ENTRYPOINT ["kmatting", "demo", "--host", "0.0.0.0"]
CMD ["--no-page"]
